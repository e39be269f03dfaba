package vip_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/netnstest"
	"github.com/centra/plasmacloud/bgp/vip"
)

var (
	vip4 = netip.MustParseAddr("203.0.113.10")
	vip6 = netip.MustParseAddr("2001:db8::10")
	both = []netip.Addr{vip4, vip6}
)

func open(t *testing.T, ns *netnstest.NS) *vip.Netlink {
	t.Helper()
	h, err := vip.Open(vip.Config{Interface: "lo", NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func list(t *testing.T, h vip.Holder) vip.Held {
	t.Helper()
	a, err := h.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func own(t *testing.T, h vip.Holder) []netip.Addr {
	t.Helper()
	return slices.SortedFunc(maps.Keys(list(t, h).Own), netip.Addr.Compare)
}

func addForeign(t *testing.T, ns *netnstest.NS, prefix string) {
	t.Helper()
	p := netip.MustParsePrefix(prefix)
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // usable at once
	}
	err := ns.Handle.AddrAdd(ns.Link(t, "lo"), a)
	if err != nil {
		t.Fatal(err)
	}
}

// The mark is in the kernel's own state: another process, after a crash, sees it.
func TestBindListRelease(t *testing.T) {
	ns := netnstest.New(t)
	if err := open(t, ns).Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	h := open(t, ns)
	if got := own(t, h); !slices.Equal(got, both) {
		t.Fatalf("own are %v", got)
	}
	if a := list(t, h); !a.Foreign[netip.MustParseAddr("127.0.0.1")] || a.Foreign[vip4] {
		t.Fatalf("foreign are %v", a.Foreign)
	}
	for range 2 { // the second time they are there, or gone, already
		if err := h.Bind(t.Context(), vip.Address, both); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := h.Release(t.Context(), vip.Anyhow, both); err != nil {
			t.Fatal(err)
		}
	}
	if got := own(t, h); len(got) != 0 {
		t.Fatalf("left are %v", got)
	}
}

// What the addresses look like to iproute2, where that is installed, and that the
// kernel does not choose them as a source.
func TestAddressProperties(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	if err := h.Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	addrs, err := ns.Handle.AddrList(ns.Link(t, "lo"), netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	const noDAD, deprecated, tentative, permanent = 0x02, 0x20, 0x40, 0x80
	seen := 0
	for _, a := range addrs {
		ones, bits := a.Mask.Size()
		ip, _ := netip.AddrFromSlice(a.IP)
		switch ip.Unmap() {
		case vip6:
			seen++
			if ones != bits || a.Flags&(noDAD|deprecated|permanent) != noDAD|deprecated|permanent || a.Flags&tentative != 0 || a.PreferedLft != 0 {
				t.Errorf("%v: flags %#x, preferred %d s", a, a.Flags, a.PreferedLft)
			}
		case vip4:
			seen++
			if ones != bits || a.Scope != int(netlink.SCOPE_HOST) {
				t.Errorf("%v: scope %d", a, a.Scope)
			}
		}
	}
	if seen != 2 {
		t.Fatalf("addresses are %v", addrs)
	}
	addForeign(t, ns, "2001:db8:2::1/128") // the node's own, with another choice than the VIP for IPv6
	for to, bits := range map[string]int{"198.51.100.1": 32, "2001:db8:1::1": 128} {
		route := &netlink.Route{LinkIndex: ns.Link(t, "lo").Attrs().Index, Dst: &net.IPNet{IP: net.ParseIP(to), Mask: net.CIDRMask(bits, bits)}}
		if err := ns.Handle.RouteAdd(route); err != nil {
			t.Fatal(err)
		}
		routes, err := ns.Handle.RouteGet(net.ParseIP(to))
		if err != nil {
			t.Fatal(err)
		}
		if src, ok := netip.AddrFromSlice(routes[0].Src); ok && slices.Contains(both, src.Unmap()) {
			t.Errorf("source to %s is the VIP %s", to, src)
		}
	}
	if out, err := exec.Command("ip", "netns", "exec", strings.TrimPrefix(ns.Path, "/run/netns/"), "ip", "address", "show", "dev", "lo").CombinedOutput(); err == nil {
		t.Logf("%s", out)
	}
}

// An address without the mark counts as held, and stays whatever we are told.
func TestForeignStays(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	addForeign(t, ns, "203.0.113.10/32")
	addForeign(t, ns, "2001:db8::10/128")
	addForeign(t, ns, "198.51.100.7/24")
	if err := h.Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{vip4, vip6, netip.MustParseAddr("198.51.100.7")}
	for range 2 {
		a := list(t, h)
		for _, addr := range want {
			if len(a.Own) != 0 || !a.Foreign[addr] || !a.Holds(addr, vip.Address) {
				t.Fatalf("own %v, foreign %v", a.Own, a.Foreign)
			}
		}
		if err := h.Release(t.Context(), vip.Anyhow, want); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	ns := netnstest.New(t)
	for want, cfg := range map[string]vip.Config{
		"interface edge0 in " + ns.Path:                               {Interface: "edge0", NetNS: ns.Path},
		"network namespace /run/netns/not-there":                      {Interface: "lo", NetNS: "/run/netns/not-there"},
		"/etc/passwd is no network namespace; name one in hold.netns": {Interface: "lo", NetNS: "/etc/passwd"},
	} {
		if _, err := vip.Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

func TestBindNamesWhatFails(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	bad := netip.MustParseAddr("ff02::1") // multicast is refused by the kernel
	err := h.Bind(t.Context(), vip.Address, []netip.Addr{vip4, bad, vip6})
	var one *vip.AddrError
	if !errors.As(err, &one) || one.Addr != bad || one.Do != "bind" {
		t.Fatalf("error is %v", err)
	}
	if got := own(t, h); !slices.Equal(got, both) {
		t.Fatalf("own are %v", got)
	}
}

func TestWatch(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	ctx, cancel := context.WithCancel(t.Context())
	changes, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- h.Watch(ctx, func() { changes <- struct{}{} }) }()
	next := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("no event for %s", what)
		}
	}
	next("the start")
	addForeign(t, ns, "203.0.113.10/32")
	next("an added IPv4 address")
	if err := h.Bind(t.Context(), vip.Address, []netip.Addr{vip6}); err != nil {
		t.Fatal(err)
	}
	next("an added IPv6 address")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// List is whole or fails, also while something comes and goes.
func TestMany(t *testing.T) {
	for _, how := range []vip.How{vip.Address, vip.Route} {
		t.Run(how.String(), func(t *testing.T) { testMany(t, how) })
	}
}

func testMany(t *testing.T, how vip.How) {
	ns := netnstest.New(t)
	h, busy := open(t, ns), open(t, ns)
	addrs := make([]netip.Addr, 10_000)
	a := netip.MustParseAddr("10.0.0.1")
	for i := range addrs {
		addrs[i] = a
		a = a.Next()
	}
	timed := func(what string, f func() error) {
		t.Helper()
		began := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
	}
	timed("bind 10000", func() error { return h.Bind(t.Context(), how, addrs) })
	timed("list 10000", func() error { _, err := h.List(t.Context()); return err })

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	other := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = busy.Bind(ctx, how, other)
			_ = busy.Release(ctx, how, other)
		}
	}()
	whole, refused := 0, 0
	for whole < 5 && refused < 50 {
		got, err := h.List(t.Context())
		if err != nil {
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				t.Fatal(err)
			}
			refused++
			continue
		}
		for _, addr := range addrs {
			if got.Own[addr] == vip.None {
				t.Fatalf("%s is missing from a list of %d", addr, len(got.Own))
			}
		}
		whole++
	}
	t.Logf("%d lists whole, %d given up", whole, refused)
	cancel()
	<-ended
	timed("release 10000", func() error { return h.Release(t.Context(), vip.Anyhow, addrs) })
	if err := h.Release(t.Context(), vip.Anyhow, other); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); len(got) != 0 {
		t.Fatalf("%d left", len(got))
	}
}

// An interface that is gone holds nothing, and nothing can be bound to it; one of
// the same name that comes later is used.
func TestInterfaceGone(t *testing.T) {
	ns := netnstest.New(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7"}}
	if _, err := vip.Open(vip.Config{Interface: "br7", NetNS: ns.Path}); err == nil ||
		err.Error() != "interface br7 in "+ns.Path+": Link not found; create it, or name another one in hold" {
		t.Errorf("error is %v", err)
	}
	if err := ns.Handle.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	h, err := vip.Open(vip.Config{Interface: "br7", NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	if err := ns.Handle.LinkDel(bridge); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); len(got) != 0 {
		t.Errorf("holds %v", got)
	}
	if err := h.Bind(t.Context(), vip.Address, both); err == nil {
		t.Error("bound to nothing")
	}
	if err := ns.Handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7"}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); !slices.Equal(got, both) {
		t.Errorf("holds %v", got)
	}
}

// Another namespace takes the place of the one that was opened: what counts is
// what the path leads to, also for who watches.
func TestNamespaceReplaced(t *testing.T) {
	first, second := netnstest.New(t), netnstest.New(t)
	path := t.TempDir() + "/edge"
	if err := os.Symlink(first.Path, path); err != nil {
		t.Fatal(err)
	}
	h, err := vip.Open(vip.Config{Interface: "lo", NetNS: path})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	watched := make(chan error, 1)
	listens := make(chan struct{}, 10)
	go func() { watched <- h.Watch(t.Context(), func() { listens <- struct{}{} }) }()
	<-listens
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); len(got) != 0 {
		t.Errorf("without the namespace holds %v", got)
	}
	if err := h.Bind(t.Context(), vip.Address, both); err == nil {
		t.Error("bound to nothing")
	}
	if err := os.Symlink(second.Path, path); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); len(got) != 0 {
		t.Errorf("the new namespace holds %v", got)
	}
	if err := h.Bind(t.Context(), vip.Address, both); err != nil {
		t.Fatal(err)
	}
	if got := own(t, open(t, second)); !slices.Equal(got, both) {
		t.Errorf("the new namespace holds %v", got)
	}
	select {
	case <-watched:
	case <-time.After(10 * time.Second):
		t.Error("the old namespace is still watched")
	}
}
