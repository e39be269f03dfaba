package bgp_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/vishvananda/netlink"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// VIPs of the tests; the first two are of both families.
const (
	v4a = "203.0.113.10"
	v6a = "2001:db8::10"
	v4b = "203.0.113.11"
	v4c = "203.0.113.12"
	v4d = "203.0.113.13"
)

func host(vip string) netip.Prefix { return speaker.HostPrefix(netip.MustParseAddr(vip)) }

// A VIP follows its health: bound and announced while up, and once down withdrawn
// at once, held through the drain, and only then released.
func TestAnnounceAndWithdraw(t *testing.T) { gobgpdtest.Each(t, testAnnounceAndWithdraw) }

func testAnnounceAndWithdraw(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	s.configure(
		object{"address": v4a, "communities": []string{"65001:100"}, "med": 7, "checks": []object{web.check()}},
		object{"address": v6a, "checks": []object{web.check()}},
		object{"address": v4b})
	s.start()
	s.waitRoutes(v4a, v6a, v4b)
	s.waitHeld(v4a, v6a, v4b)
	if r := s.router.Learned(t)[host(v4a)]; r.MED == nil || *r.MED != 7 || fmt.Sprint(r.Communities) != "[65001:100]" {
		t.Errorf("route is %+v", r)
	}
	removed := s.removals()
	web.bad.Store(true)
	s.waitRoutes(v4b)
	gone := time.Now()
	s.waitHeld(v4b)
	for _, v := range []string{v4a, v6a} {
		if at := removed.wait(v); at.Before(gone.Add(-50 * time.Millisecond)) {
			t.Errorf("%s left the host at %v, its route at %v", v, at, gone)
		}
	}
	web.bad.Store(false)
	s.waitRoutes(v4a, v6a, v4b)
	s.waitHeld(v4a, v6a, v4b)
}

// The order of a clean stop, by events: the route leaves the router while the
// address is still held, and the address leaves the host a drain later.
func TestStopOrder(t *testing.T) { gobgpdtest.Each(t, testStopOrder) }

func testStopOrder(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g})
	s.configure(object{"address": v4a}, object{"address": v6a})
	s.start()
	s.waitRoutes(v4a, v6a)
	removed := s.removals()
	type withdrawal struct {
		prefix string
		at     time.Time
		held   bool
	}
	withdrawals := make(chan withdrawal, 10)
	watchWithdrawals(t, s.router.API, func(prefix string) {
		addr := netip.MustParsePrefix(prefix).Addr()
		withdrawals <- withdrawal{prefix, time.Now(), s.held().Own[addr] != vip.None}
	})
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	s.waitHeld()
	for range 2 {
		select {
		case w := <-withdrawals:
			if !w.held {
				t.Errorf("%s was not held when its route left the router", w.prefix)
			}
			vip := netip.MustParsePrefix(w.prefix).Addr().String()
			at := removed.wait(vip)
			// The delay starts when the speaker has passed the withdraw on, which can
			// be a little before the router's event reaches us.
			if after := at.Sub(w.at); after < drainDelay*3/4 {
				t.Errorf("%s left the host %s after its route, want about %s", vip, after, drainDelay)
			} else {
				t.Logf("%s: address left %s after the route; drain_delay is %s", vip, after.Round(time.Millisecond), drainDelay)
			}
		case <-time.After(gobgpdtest.Wait):
			t.Fatal("no withdrawal seen")
		}
	}
	s.waitRoutes()
}

// watchWithdrawals calls each for every route that the router loses.
func watchWithdrawals(t *testing.T, address string, each func(prefix string)) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := api.NewGobgpApiClient(conn).WatchEvent(t.Context(), &api.WatchEventRequest{Table: &api.WatchEventRequest_Table{
		Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_BEST, Init: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	// The table itself comes first, so the watch is known to be in place.
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			event, err := stream.Recv()
			if err != nil {
				return
			}
			for _, p := range event.GetTable().GetPaths() {
				var nlri api.IPAddressPrefix
				if p.IsWithdraw && p.Nlri.UnmarshalTo(&nlri) == nil {
					each(fmt.Sprintf("%s/%d", nlri.Prefix, nlri.PrefixLen))
				}
			}
		}
	}()
}

// The announcer dies without a word. Its successor takes over what is there: no
// UPDATE for a VIP that stays, and one that left the configuration meanwhile is
// withdrawn and released.
func TestAnnouncerKilled(t *testing.T) { gobgpdtest.Each(t, testAnnouncerKilled) }

func testAnnouncerKilled(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	checked := object{"address": v4a, "med": 7, "communities": []string{"65001:2", "65001:1"}, "checks": []object{web.check()}}
	s.configure(checked, object{"address": v6a}, object{"address": v4b})
	s.start()
	s.waitRoutes(v4a, v6a, v4b)
	s.crash()
	before := s.router.Updates(t)
	removed := s.removals()
	s.configure(checked, object{"address": v6a})
	asked := web.asked.Load()
	s.start()
	s.waitRoutes(v4a, v6a)
	s.waitHeld(v4a, v6a)
	s.waitLog("health changed", 1)
	// The checks are up again, and two periodic passes have looked since.
	s.eventually("checks were asked again", func() error {
		if n := web.asked.Load(); n < asked+40 {
			return fmt.Errorf("%d times", n-asked)
		}
		return nil
	})
	if got := s.router.Updates(t) - before; got != 1 {
		t.Errorf("%d UPDATEs after the restart, want the one withdraw", got)
	}
	for _, v := range []string{v4a, v6a} {
		if _, ok := removed.of(v); ok {
			t.Errorf("%s was let go", v)
		}
	}
}

// A crash in the middle of a drain: the address is released by the successor,
// a whole drain later.
func TestAnnouncerKilledWhileDraining(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	s.configure(object{"address": v4a})
	if err := s.holder.Bind(t.Context(), vip.Address, []netip.Addr{netip.MustParseAddr(v4a), netip.MustParseAddr(v4b)}); err != nil {
		t.Fatal(err)
	}
	removed := s.removals()
	began := time.Now()
	s.start()
	s.waitHeld(v4a)
	s.waitRoutes(v4a)
	if after := removed.wait(v4b).Sub(began); after < drainDelay {
		t.Errorf("released after %s", after)
	}
}

// What others made is left alone, from the start to the stop, even where it is for our VIP.
func TestForeignUntouched(t *testing.T) { gobgpdtest.Each(t, testForeignUntouched) }

func testForeignUntouched(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g})
	for _, v := range []string{v4a, v4c} {
		s.daemon.AddForeign(t, host(v), "0.0.0.0")
	}
	addForeign(t, s, v4b)
	addForeign(t, s, "198.51.100.1")
	s.configure(object{"address": v4a}, object{"address": v4b})
	s.start()
	s.waitRoutes(v4a, v4b, v4c)
	s.waitHeld(v4a)
	s.waitLog("somebody else's; left alone", 2)
	for v, what := range map[string]string{v4a: "a path", v4b: "the address"} {
		if out, _ := s.plasmactl("vip", "show", v); !strings.Contains(out, "; "+what+" of somebody else's is left alone") {
			t.Errorf("not told of %s:\n%s", what, out)
		}
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	s.waitRoutes(v4a, v4c) // by their strangers
	s.waitHeld()
	for _, v := range []string{v4b, "198.51.100.1"} {
		if !s.held().Foreign[netip.MustParseAddr(v)] {
			t.Errorf("the foreign %s is gone", v)
		}
	}
	if n := s.count("somebody else's; left alone"); n != 2 {
		t.Errorf("reported %d times, want once for each VIP", n)
	}
}

func addForeign(t *testing.T, s *site, vip string) {
	t.Helper()
	err := s.ns.Handle.AddrAdd(s.ns.Link(t, "lo"), &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(vip).To4(), Mask: net.CIDRMask(32, 32)}})
	if err != nil {
		t.Fatal(err)
	}
}

// Someone removes our address: the kernel's event brings it back, not the timer.
func TestAddressPutBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	s.configure(object{"address": v4a})
	s.start()
	s.waitRoutes(v4a)
	updates := s.router.Updates(t)
	if err := s.holder.Release(t.Context(), vip.Address, []netip.Addr{netip.MustParseAddr(v4a)}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.waitHeld(v4a)
	t.Logf("put back after %s", time.Since(began).Round(time.Millisecond))
	s.waitLog("bound", 2)
	if got := s.router.Updates(t) - updates; got != 0 {
		t.Errorf("%d UPDATEs for an address", got)
	}
}

// SIGHUP touches what changed and nothing else, and a bad file changes nothing.
func TestReload(t *testing.T) { gobgpdtest.Each(t, testReload) }

func testReload(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	same := object{"address": v4a, "checks": []object{web.check()}}
	s.configure(same, object{"address": v4b}, object{"address": v6a, "med": 1})
	s.start()
	s.waitRoutes(v4a, v4b, v6a)
	s.waitHeld(v4a, v4b, v6a)
	removed, before := s.removals(), s.router.Updates(t)
	s.configure(same, object{"address": v4c}, object{"address": v6a, "med": 2})
	s.signal(syscall.SIGHUP)
	s.waitRoutes(v4a, v4c, v6a)
	s.waitHeld(v4a, v4c, v6a)
	s.eventually("the changed attribute is out", func() error {
		if med := s.router.Learned(t)[host(v6a)].MED; med == nil || *med != 2 {
			return fmt.Errorf("MED is %v", med)
		}
		return nil
	})
	if got := s.router.Updates(t) - before; got != 3 {
		t.Errorf("%d UPDATEs, want 3: one added, one changed, one withdrawn", got)
	}
	if n := s.count("health changed"); n != 1 {
		t.Errorf("health changed %d times; the unchanged check should keep its state", n)
	}
	for _, v := range []string{v4a, v6a} {
		if _, ok := removed.of(v); ok {
			t.Errorf("%s was let go", v)
		}
	}
	before = s.router.Updates(t)
	if err := os.WriteFile(s.file, []byte(`{"vips": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.waitLog("reload refused; the old configuration stays", 1)
	if out, _ := s.plasmactl("vip", "list"); !strings.Contains(out, "an older configuration is in force: "+s.file+": schema_version: is missing") {
		t.Errorf("not told of the refused file:\n%s", out)
	}
	s.configure(object{"address": v4a, "checks": []object{web.check()}, "prefix": "x"})
	s.signal(syscall.SIGHUP)
	s.waitLog("reload refused; the old configuration stays", 2)
	asked := web.asked.Load()
	s.eventually("checks go on", func() error {
		if web.asked.Load() < asked+25 {
			return context.DeadlineExceeded
		}
		return nil
	})
	s.waitRoutes(v4a, v4c, v6a)
	if got := s.router.Updates(t) - before; got != 0 {
		t.Errorf("%d UPDATEs for a bad file", got)
	}
	s.configure(same)
	s.signal(syscall.SIGHUP)
	s.waitRoutes(v4a)
	if out, _ := s.plasmactl("vip", "list"); strings.Contains(out, "in force") {
		t.Errorf("still told of it:\n%s", out)
	}
}

// A VIP of a backup node: its path is longer, as far as a router of another AS can
// see. One of our own would drop it for a loop, so it gets the plain path.
func TestPrepend(t *testing.T) { gobgpdtest.Each(t, testPrepend) }

func testPrepend(t *testing.T, g gobgpdtest.Generation) {
	for asn, want := range map[uint32][3]string{
		gobgpdtest.RouterASN:  {"[65001]", "[65001 65001 65001]", "[65001 65001]"},
		gobgpdtest.SpeakerASN: {"[]", "[]", "[]"},
	} {
		t.Run(fmt.Sprint("router of AS ", asn), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, gobgpdtest.Config{Generation: g, PeerASN: asn})
			s.configure(object{"address": v4a}, object{"address": v4b, "prepend": 2}, object{"address": v6a, "prepend": 255})
			s.start()
			s.waitRoutes(v4a, v4b, v6a)
			seen := func(vip string) string { return fmt.Sprint(s.router.Learned(t)[host(vip)].ASPath) }
			if a, b := seen(v4a), seen(v4b); a != want[0] || b != want[1] {
				t.Errorf("paths are %s and %s, want %v", a, b, want)
			}
			if n := len(s.router.Learned(t)[host(v6a)].ASPath); asn == gobgpdtest.RouterASN && n != 256 || asn != gobgpdtest.RouterASN && n != 0 {
				t.Errorf("the longest path has %d", n)
			}
			updates := s.router.Updates(t)
			s.configure(object{"address": v4a}, object{"address": v4b, "prepend": 1}, object{"address": v6a, "prepend": 255})
			s.signal(syscall.SIGHUP)
			s.waitLog("reloaded", 1)
			s.eventually("the router sees the change", func() error {
				if got := seen(v4b); got != want[2] {
					return fmt.Errorf("path is %s", got)
				}
				return nil
			})
			n, left := s.router.Updates(t)-updates, s.count("prepend is left out, since the speaker has a peer of its own AS, which would drop the path for a loop")
			if external := asn == gobgpdtest.RouterASN; external && (n != 1 || left != 0) || !external && (n != 0 || left != 1) {
				t.Errorf("%d UPDATEs, warned %d times", n, left)
			}
		})
	}
}

// Each VIP drains as long as it says, also one that left the configuration.
func TestDrainDelayOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	const long = 3 * drainDelay
	s.configure(object{"address": v4a, "drain_delay": long.String()}, object{"address": v4b}, object{"address": v4c, "drain_delay": long.String()})
	s.start()
	s.waitRoutes(v4a, v4b, v4c)
	removed := s.removals()
	s.configure(object{"address": v4a, "drain_delay": long.String()})
	s.signal(syscall.SIGHUP)
	s.waitRoutes(v4a)
	if b, c := removed.wait(v4b), removed.wait(v4c); c.Sub(b) < long/2 {
		t.Errorf("%s with the longer delay left %s after the other", v4c, c.Sub(b))
	}
	stopped := time.Now()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if after := removed.wait(v4a).Sub(stopped); after < long*3/4 {
		t.Errorf("%s left %s after the signal", v4a, after)
	}
}
