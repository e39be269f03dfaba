package vip

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addressMessage is what the kernel's dump has for an address of ours.
func addressMessage(a netip.Addr, proto uint8) []byte {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, 0)
	describeAddress(req, 1, a)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{proto}))
	return req.Serialize()[unix.SizeofNlMsghdr:]
}

func routeMessage(a netip.Addr) []byte {
	req := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, 0)
	describeRoute(req, 1, a)
	return req.Serialize()[unix.SizeofNlMsghdr:]
}

// Whatever a message has, it is read or refused, and what is read is an address.
func FuzzParseAddress(f *testing.F) {
	for _, a := range []string{"203.0.113.10", "2001:db8::10"} {
		message := addressMessage(netip.MustParseAddr(a), Protocol)
		f.Add(message)
		f.Add(message[:len(message)-3])
		f.Add(message[:unix.SizeofIfAddrmsg])
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		a, err := parseAddress(message)
		if err == nil && a.local.IsValid() && a.local.BitLen() != 32 && a.local.BitLen() != 128 {
			t.Errorf("%+v", a)
		}
	})
}

// A route counts only if all of it is right: local table, our protocol, one host.
func FuzzParseRoute(f *testing.F) {
	for _, a := range []string{"203.0.113.10", "2001:db8::10"} {
		message := routeMessage(netip.MustParseAddr(a))
		f.Add(message)
		f.Add(message[:len(message)-3])
		f.Add(message[:unix.SizeofRtMsg])
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		dst, _, err := parseRoute(message, Protocol)
		if err != nil || !dst.IsValid() {
			return
		}
		if header := nl.DeserializeRtMsg(message); !isLocal(header, Protocol) || int(header.Dst_len) != dst.BitLen() {
			t.Errorf("%s of %+v", dst, header)
		}
	})
}

func FuzzConcerns(f *testing.F) {
	for _, kind := range []uint16{unix.RTM_NEWADDR, unix.RTM_NEWROUTE, unix.RTM_DELLINK} {
		f.Add(kind, routeMessage(netip.MustParseAddr("203.0.113.10")))
		f.Add(kind, append(make([]byte, unix.SizeofIfInfomsg), nl.NewRtAttr(unix.IFLA_IFNAME, []byte("lo\x00")).Serialize()...))
		f.Add(kind, []byte{1})
	}
	n := &Netlink{cfg: Config{Interface: "lo"}}
	f.Fuzz(func(t *testing.T, kind uint16, message []byte) {
		if n.concerns(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: message}) && len(message) == 0 && kind == unix.RTM_NEWROUTE {
			t.Error("nothing is of concern")
		}
	})
}
