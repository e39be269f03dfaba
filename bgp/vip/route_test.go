package vip_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/netnstest"
	"github.com/centra/plasmacloud/bgp/vip"
)

// local reports whether the kernel takes what is sent to a as its own.
func local(t *testing.T, ns *netnstest.NS, a netip.Addr) bool {
	t.Helper()
	routes, err := ns.Handle.RouteGet(a.AsSlice())
	return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
}

func foreignRoute(t *testing.T, ns *netnstest.NS, a netip.Addr, metric int) *netlink.Route {
	t.Helper()
	r := &netlink.Route{LinkIndex: ns.Link(t, "lo").Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Priority: metric,
		Scope: netlink.SCOPE_HOST, Protocol: unix.RTPROT_STATIC, Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if err := ns.Handle.RouteAdd(r); err != nil {
		t.Fatal(err)
	}
	return r
}

// A VIP moves from one way to the other and back, and is the host's own all the time.
func TestMove(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	check := func(step string, want vip.How) {
		t.Helper()
		for _, a := range both {
			if got := list(t, h).Own[a]; got != want || local(t, ns, a) != (want != vip.None) {
				t.Errorf("%s: %s is held as %s, want %s; local: %v", step, a, got, want, local(t, ns, a))
			}
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("at first", vip.None)
	for range 2 { // what is there, or gone, already is no error
		do(h.Bind(t.Context(), vip.Route, both))
		check("bound as route", vip.Route)
	}
	do(h.Bind(t.Context(), vip.Address, both))
	check("bound as address", vip.Address|vip.Route)
	do(h.Release(t.Context(), vip.Route, both))
	check("without the route", vip.Address)
	do(h.Bind(t.Context(), vip.Route, both))
	for range 2 {
		do(h.Release(t.Context(), vip.Address, both))
		check("without the address", vip.Route)
	}
	do(h.Release(t.Context(), vip.Anyhow, both))
	check("released", vip.None)
}

// The kernel takes all routes from an interface with its last IPv4 address. Ours are
// the host's own all the same, all the time.
func TestLastAddress(t *testing.T) {
	ns := netnstest.New(t)
	if err := ns.Handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7"}}); err != nil {
		t.Fatal(err)
	}
	if err := ns.Handle.LinkSetUp(ns.Link(t, "br7")); err != nil {
		t.Fatal(err)
	}
	h, err := vip.Open(vip.Config{Interface: "br7", NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	other := netip.MustParseAddr("203.0.113.11")
	all := []netip.Addr{vip4, other, vip6}
	for _, how := range []vip.How{vip.Address, vip.Route} {
		if err := h.Bind(t.Context(), how, all); err != nil {
			t.Fatal(err)
		}
	}
	stop, lost := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(lost)
		for {
			for _, a := range all {
				if routes, err := ns.Handle.RouteGet(a.AsSlice()); err != nil || routes[0].Type != unix.RTN_LOCAL {
					lost <- fmt.Sprintf("%s: %v, %v", a, routes, err)
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 20 {
		if err := h.Release(t.Context(), vip.Address, all); err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if got := list(t, h).Own[a]; got != vip.Route {
				t.Fatalf("%s is held as %s", a, got)
			}
		}
		if err := h.Bind(t.Context(), vip.Address, all); err != nil {
			t.Fatal(err)
		}
		if err := h.Release(t.Context(), vip.Route, all); err != nil {
			t.Fatal(err)
		}
		if err := h.Bind(t.Context(), vip.Route, all); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if what, ok := <-lost; ok {
		t.Error("lost ", what)
	}
}

// Routes of others stay, and do not keep ours from coming and going beside them.
func TestForeignRouteStays(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	for _, a := range both {
		foreignRoute(t, ns, a, 0)
	}
	if err := h.Bind(t.Context(), vip.Route, both); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); !slices.Equal(got, both) {
		t.Errorf("own are %v", got)
	}
	if err := h.Release(t.Context(), vip.Anyhow, both); err != nil {
		t.Fatal(err)
	}
	if got := own(t, h); len(got) != 0 || !local(t, ns, vip4) || !local(t, ns, vip6) {
		t.Errorf("own are %v", got)
	}
	// An IPv6 one with our metric is in the way, and named.
	other := netip.MustParseAddr("2001:db8::11")
	foreignRoute(t, ns, other, int(vip.Protocol))
	err := h.Bind(t.Context(), vip.Route, []netip.Addr{other, vip4})
	if err == nil || err.Error() != "bind 2001:db8::11: somebody else's local route is there with metric 86; remove it" {
		t.Errorf("error is %v", err)
	}
	if got := own(t, h); !slices.Equal(got, both[:1]) {
		t.Errorf("own are %v", got)
	}
}

// What an announcer left on another interface is found, told apart, and let go of.
func TestStray(t *testing.T) {
	ns := netnstest.New(t)
	if err := ns.Handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7"}}); err != nil {
		t.Fatal(err)
	}
	if err := ns.Handle.LinkSetUp(ns.Link(t, "br7")); err != nil {
		t.Fatal(err)
	}
	old := open(t, ns)
	h, err := vip.Open(vip.Config{Interface: "br7", NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	addForeign(t, ns, "198.51.100.7/32") // of the other interface, so no concern of ours
	for _, how := range []vip.How{vip.Address, vip.Route} {
		if err := old.Bind(t.Context(), how, both); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want vip.How) {
		t.Helper()
		held := list(t, h)
		for _, a := range both {
			if held.Own[a] != want || local(t, ns, a) != (want != vip.None) {
				t.Errorf("%s is held as %s, want %s", a, held.Own[a], want)
			}
		}
		if held.Foreign[netip.MustParseAddr("198.51.100.7")] {
			t.Errorf("foreign are %v", held.Foreign)
		}
	}
	expect(vip.Stray)
	for _, step := range []struct{ bind, release, want vip.How }{
		{vip.Address, vip.Route, vip.Address | vip.Stray},
		{vip.Route, vip.Stray, vip.Address | vip.Route},
		{vip.Route, vip.Address | vip.Stray, vip.Route},
		{vip.Route, vip.Anyhow, vip.None},
	} {
		if err := h.Bind(t.Context(), step.bind, both); err != nil {
			t.Fatal(err)
		}
		if err := h.Release(t.Context(), step.release, both); err != nil {
			t.Fatal(err)
		}
		expect(step.want)
	}
	if got := own(t, old); len(got) != 0 {
		t.Errorf("left are %v", got)
	}
}

// Whoever takes a route of ours away is noticed, and so is an interface that goes
// down; the thousands of routes of a router are not.
func TestWatchRoutes(t *testing.T) {
	ns := netnstest.New(t)
	h := open(t, ns)
	changes := make(chan struct{}, 1000)
	go func() { _ = h.Watch(t.Context(), func() { changes <- struct{}{} }) }()
	next := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("no event for %s", what)
		}
	}
	next("the start")
	if err := h.Bind(t.Context(), vip.Route, both); err != nil {
		t.Fatal(err)
	}
	next("the IPv4 route")
	next("the IPv6 route")
	for range 100 {
		r := foreignRoute(t, ns, netip.MustParseAddr("203.0.113.99"), 7)
		if err := ns.Handle.RouteDel(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Release(t.Context(), vip.Anyhow, both[:1]); err != nil {
		t.Fatal(err)
	}
	next("the route that is gone")
	if n := len(changes); n != 0 {
		t.Errorf("%d events for routes of others", n)
	}
	if err := ns.Handle.LinkSetDown(ns.Link(t, "lo")); err != nil {
		t.Fatal(err)
	}
	next("the interface that went down")
}

func TestHowIsNamed(t *testing.T) {
	var names []string
	for _, how := range []vip.How{vip.None, vip.Address, vip.Route, vip.Route | vip.Stray} {
		names = append(names, how.String())
	}
	if got := strings.Join(names, " "); got != "none address route route+stray" {
		t.Error(got)
	}
	ns := netnstest.New(t)
	for _, how := range []vip.How{vip.None, vip.Stray, vip.Anyhow} {
		if err := open(t, ns).Bind(t.Context(), how, both); err == nil {
			t.Errorf("bound as %s", how)
		}
	}
}
