package bgp_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/vip"
)

// kernelEvent is about one VIP: its address or route came or went.
type kernelEvent struct {
	vip   string
	there bool
	at    time.Time
}

// kernelEvents are those of addresses and of our routes, as the kernel tells them.
func (s *site) kernelEvents() <-chan kernelEvent {
	s.t.Helper()
	ns, err := netns.GetFromPath(s.ns.Path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan struct{})
	s.t.Cleanup(func() { close(done) })
	addrs, routes, events := make(chan netlink.AddrUpdate, 64), make(chan netlink.RouteUpdate, 64), make(chan kernelEvent, 64)
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{Namespace: &ns}); err != nil {
		s.t.Fatal(err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{Namespace: &ns}); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			select {
			case a := <-addrs:
				events <- kernelEvent{a.LinkAddress.IP.String(), a.NewAddr, time.Now()}
			case r := <-routes:
				if r.Protocol == netlink.RouteProtocol(vip.Protocol) && r.Dst != nil {
					events <- kernelEvent{r.Dst.IP.String(), r.Type == unix.RTM_NEWROUTE, time.Now()}
				}
			case <-done:
				return
			}
		}
	}()
	return events
}

// What somebody else takes away of ours is back within a second, each time, long before
// the next pass would be due.
func TestSomebodyRemoves(t *testing.T) {
	t.Parallel()
	const times, bound = 20, time.Second
	s := newSite(t, gobgpdtest.Config{})
	s.extra = object{"reconcile_interval": "1h"}
	s.configure(object{"address": v4a}, object{"address": v6a}, object{"address": "203.0.113.77", "hold": "route"}, object{"address": "2001:db8::77", "hold": "route"})
	s.start()
	s.waitRoutes(v4a, v6a, "203.0.113.77", "2001:db8::77")
	events := s.kernelEvents()
	await := func(vip string, there bool) time.Time {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case e := <-events:
				if e.vip == vip && e.there == there {
					return e.at
				}
			case <-late:
				t.Fatalf("%s: held %t, waited for the contrary", vip, !there)
			}
		}
	}
	for _, one := range []struct {
		vip string
		how vip.How
	}{{v4a, vip.Address}, {v6a, vip.Address}, {"203.0.113.77", vip.Route}, {"2001:db8::77", vip.Route}} {
		var worst time.Duration
		for range times {
			if err := s.holder.Release(t.Context(), one.how, []netip.Addr{netip.MustParseAddr(one.vip)}); err != nil {
				t.Fatal(err)
			}
			gone := await(one.vip, false)
			worst = max(worst, await(one.vip, true).Sub(gone))
		}
		t.Logf("%s as %s: back after %s at worst, of %d times", one.vip, one.how, worst, times)
		if worst >= bound {
			t.Errorf("%s as %s: back after %s", one.vip, one.how, worst)
		}
	}
}
