package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeMetric keeps our routes apart from the local route that the kernel makes for an
// address (metric 0), and from what people add by hand: a route is known by its
// destination and its metric, so each may come and go without the other.
const routeMetric = uint32(Protocol)

// addRoute is `ip route prepend local A dev IF table local proto 86 metric 86`: beside
// one over another interface, where EXCL would refuse.
func (n *Netlink) addRoute(index int, a netip.Addr) error {
	req := n.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	describeRoute(req, index, a)
	_, err := n.execute(req, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// IPv6 says so of a route of any protocol.
	ours := false
	err = whole(context.Background(), func() error {
		return n.dumpRoutes(Protocol, func(dst netip.Addr, oif int) { ours = ours || dst == a && oif == index })
	})
	if err != nil {
		return err
	}
	if !ours {
		return fmt.Errorf("somebody else's local route is there with metric %d; remove it", routeMetric)
	}
	return nil
}

func (n *Netlink) removeRoute(index int, a netip.Addr) error {
	req := n.request(unix.RTM_DELROUTE, unix.NLM_F_ACK)
	describeRoute(req, index, a)
	_, err := n.execute(req, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// describeRoute says all of a route of ours, so that a removal meets no other.
func describeRoute(req *nl.NetlinkRequest, index int, a netip.Addr) {
	header := &nl.RtMsg{}
	header.Family = unix.AF_INET6
	if a.Is4() {
		header.Family = unix.AF_INET
		header.Scope = unix.RT_SCOPE_HOST
	}
	header.Dst_len = uint8(a.BitLen())
	header.Table = unix.RT_TABLE_LOCAL
	header.Protocol = Protocol
	header.Type = unix.RTN_LOCAL
	req.AddData(header)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, a.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(routeMetric)))
}

// shelter removes the last IPv4 address of an interface. With it the kernel takes all
// IPv4 routes over that interface away (fib_disable_ip); ours are over lo meanwhile.
func (n *Netlink) shelter(index int, found *finding, remove func() error) error {
	var routes []netip.Addr
	for a, marks := range found.marks {
		if a.Is4() && slices.Contains(marks, mark{Route, index}) {
			routes = append(routes, a)
		}
	}
	if index == loopback {
		routes = nil
	}
	for _, a := range routes {
		if err := n.addRoute(loopback, a); err != nil {
			return fmt.Errorf("route over lo meanwhile: %w", err)
		}
	}
	errs := []error{remove()}
	for _, a := range routes {
		err := n.addRoute(index, a)
		if err == nil {
			err = n.removeRoute(loopback, a)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// loopback is the index of lo, in every network namespace.
const loopback = 1

// awaitEffect returns when the kernel takes what is sent to the IPv6 addresses as its
// own: it adds its route for one a little after the address itself.
func (n *Netlink) awaitEffect(ctx context.Context, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	const tries, pause = 100, 5 * time.Millisecond
	for range tries {
		there := map[netip.Addr]bool{}
		err := n.dumpRoutes(unix.RTPROT_KERNEL, func(dst netip.Addr, _ int) { there[dst] = true })
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !there[a] }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return fmt.Errorf("%s is not in effect yet; is the interface down?", addrs[0])
}

// dumpRoutes reads every local host route of a protocol, whatever its interface. On
// ErrDumpInterrupted each has seen a part.
func (n *Netlink) dumpRoutes(protocol uint8, each func(dst netip.Addr, index int)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		req := n.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		header := &nl.RtMsg{}
		header.Family, header.Table, header.Protocol, header.Type = family, unix.RT_TABLE_LOCAL, protocol, unix.RTN_LOCAL
		req.AddData(header)
		messages, err := n.execute(req, unix.RTM_NEWROUTE)
		for _, m := range messages {
			dst, index, parseErr := parseRoute(m, protocol)
			if parseErr != nil {
				return parseErr
			}
			if dst.IsValid() {
				each(dst, index)
			}
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // no such table: nothing was ever in it
			return err
		}
	}
	return nil
}

// parseRoute is the destination and the interface of a local host route of a protocol;
// of any other route the destination is not valid.
func parseRoute(message []byte, protocol uint8) (dst netip.Addr, index int, err error) {
	if len(message) < unix.SizeofRtMsg {
		return netip.Addr{}, 0, fmt.Errorf("netlink: route message of %d bytes", len(message))
	}
	header := nl.DeserializeRtMsg(message)
	if !isLocal(header, protocol) {
		return netip.Addr{}, 0, nil
	}
	err = attributes(message[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			if len(value) == 4 {
				index = int(binary.NativeEndian.Uint32(value))
			}
		}
	})
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("netlink: route message: %w", err)
	}
	if int(header.Dst_len) != dst.BitLen() {
		return netip.Addr{}, 0, nil
	}
	return dst, index, nil
}

func isLocal(header *nl.RtMsg, protocol uint8) bool {
	return header.Table == unix.RT_TABLE_LOCAL && header.Protocol == protocol && header.Type == unix.RTN_LOCAL
}
