package bgp_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/vip"
)

// waitHow returns when the host holds each VIP in exactly that way.
func (s *site) waitHow(want map[string]vip.How) {
	s.t.Helper()
	s.eventually(fmt.Sprint("host holds ", want), func() error {
		own := s.held().Own
		for v, how := range want {
			if own[netip.MustParseAddr(v)] != how {
				return fmt.Errorf("holds %v", own)
			}
		}
		return nil
	})
}

// watchLocal complains, until done is called, when a packet to one of the VIPs would
// not be the host's own.
func (s *site) watchLocal(vips ...string) (done func()) {
	stop, ended := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(ended)
		for {
			for _, v := range vips {
				if routes, err := s.ns.Handle.RouteGet(netip.MustParseAddr(v).AsSlice()); err != nil || routes[0].Type != unix.RTN_LOCAL {
					ended <- fmt.Sprintf("%s: %v, %v", v, routes, err)
					return
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() {
		s.t.Helper()
		close(stop)
		if what, ok := <-ended; ok {
			s.t.Errorf("not the host's own: %s", what)
		}
	}
}

// A VIP goes from each way of being held to each other at a reload: the host takes its
// packets all the time, and no router hears of it.
func TestHoldChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	configure := func(how vip.How) {
		s.configure(object{"address": v4a, "hold": how.String()}, object{"address": v6a, "hold": how.String()}, object{"address": v4b, "hold": "none"})
	}
	configure(vip.Route)
	s.start()
	s.waitRoutes(v4a, v6a, v4b)
	s.waitHow(map[string]vip.How{v4a: vip.Route, v6a: vip.Route, v4b: vip.None})
	before := s.router.Updates(t)
	done := s.watchLocal(v4a, v6a)
	for _, how := range []vip.How{vip.Address, vip.Route, vip.Address} {
		configure(how)
		s.signal(syscall.SIGHUP)
		s.waitHow(map[string]vip.How{v4a: how, v6a: how, v4b: vip.None})
	}
	done()
	configure(vip.None)
	s.signal(syscall.SIGHUP)
	s.waitHow(map[string]vip.How{v4a: vip.None, v6a: vip.None})
	configure(vip.Route)
	s.signal(syscall.SIGHUP)
	s.waitHow(map[string]vip.How{v4a: vip.Route, v6a: vip.Route})
	if got := s.router.Updates(t) - before; got != 0 {
		t.Errorf("%d UPDATEs", got)
	}
}

// A VIP that is held by a route has the same life as one with an address: drained
// before it goes, put back when somebody takes it away, taken over after a crash.
func TestHeldByRoute(t *testing.T) { gobgpdtest.Each(t, testHeldByRoute) }

func testHeldByRoute(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	vips := []object{{"address": v4a, "hold": "route", "checks": []object{web.check()}}, {"address": v6a, "hold": "route"}}
	s.configure(vips...)
	s.start()
	s.waitRoutes(v4a, v6a)
	s.waitHeld(v4a, v6a)
	for _, v := range []string{v4a, v6a} {
		if err := s.holder.Release(t.Context(), vip.Route, []netip.Addr{netip.MustParseAddr(v)}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		s.waitHeld(v4a, v6a)
		t.Logf("%s put back after %s", v, time.Since(began).Round(time.Millisecond))
	}
	web.bad.Store(true)
	s.waitRoutes(v6a)
	if s.held().Own[netip.MustParseAddr(v4a)] != vip.Route {
		t.Error("released with the withdraw")
	}
	s.waitHeld(v6a)
	web.bad.Store(false)
	s.waitRoutes(v4a, v6a)
	s.crash()
	before := s.router.Updates(t)
	s.configure(vips[0])
	s.start()
	s.waitRoutes(v4a)
	s.waitHow(map[string]vip.How{v4a: vip.Route, v6a: vip.None})
	if got := s.router.Updates(t) - before; got != 1 {
		t.Errorf("%d UPDATEs after the restart, want the one withdraw", got)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitRoutes()
	s.waitHeld()
}

// The file names another interface than before: what the last announcer left on the
// old one moves, and what nobody wants is drained as anything else.
func TestAnotherInterface(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	if err := s.ns.Handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Handle.LinkSetUp(s.ns.Link(t, "br7")); err != nil {
		t.Fatal(err)
	}
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"}, object{"address": v4b})
	s.start()
	s.waitRoutes(v4a, v6a, v4b)
	s.crash()
	done := s.watchLocal(v4a, v6a)
	removed := s.removals()
	s.extra = object{"hold": object{"interface": "br7", "netns": s.ns.Path}}
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	began := time.Now()
	s.start()
	s.waitRoutes(v4a, v6a)
	if after := removed.wait(v4b).Sub(began); after < drainDelay {
		t.Errorf("%s left the old interface after %s", v4b, after)
	}
	s.waitHow(map[string]vip.How{v4a: vip.Stray, v6a: vip.Stray, v4b: vip.None}) // seen from lo
	done()
}

// Nothing of ours is held, so nothing in the live state tells of the withdraw: a stop
// waits for the drain all the same, so that whoever stops the speaker next does not
// overtake it.
func TestStopOfWhatIsNotHeld(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	addForeign(t, s, v4b)
	s.configure(object{"address": v4a, "hold": "none"}, object{"address": v4b})
	s.start()
	s.waitRoutes(v4a, v4b)
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if took := time.Since(began); took < drainDelay {
		t.Errorf("stopped after %s", took)
	}
	s.waitRoutes()
}

// A dead speaker tells nobody; but what is left is a stranger's address, and stays
// whatever becomes of us.
func TestStopWithSpeakerDeadAndForeignAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	addForeign(t, s, v4a)
	s.configure(object{"address": v4a}, object{"address": v4b, "hold": "none"})
	s.start()
	s.waitLog("announced", 1)
	s.daemon.Kill()
	s.waitLog("speaker not ready", 1)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if !s.held().Foreign[netip.MustParseAddr(v4a)] {
		t.Error("the stranger's address is gone")
	}
}

// With a lifetime addresses end that nobody renews; another file without one makes them
// last again. Routers hear of neither.
func TestHoldLifetime(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	configure := func(lifetime any) {
		s.extra = object{"hold": object{"interface": "lo", "netns": s.ns.Path, "lifetime": lifetime}}
		s.configure(object{"address": v4a}, object{"address": v6a})
	}
	wait := func(most uint32) {
		t.Helper()
		s.eventually(fmt.Sprintf("addresses end within %d s", most), func() error {
			addrs, err := s.ns.Handle.AddrList(s.ns.Link(t, "lo"), netlink.FAMILY_ALL)
			n := 0
			for _, a := range addrs {
				left := uint32(a.ValidLft)
				if ip := a.IP.String(); (ip == v4a || ip == v6a) && left <= most && left > most-60 {
					n++
				}
			}
			if err == nil && n != 2 {
				err = fmt.Errorf("they are %v", addrs)
			}
			return err
		})
	}
	const forever = 1<<32 - 1
	configure("5m")
	s.start()
	s.waitRoutes(v4a, v6a)
	wait(300)
	before := s.router.Updates(t)
	for _, to := range []struct {
		lifetime any
		most     uint32
	}{{nil, forever}, {"1h", 3600}} {
		s.crash()
		configure(to.lifetime)
		s.start()
		wait(to.most)
	}
	s.waitLog("speaker ready", 1)
	if got := s.router.Updates(t) - before; got != 0 {
		t.Errorf("%d UPDATEs", got)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitHeld()
}

// The kernel's settings of ARP are those of the announcer while it runs, through a crash,
// and after a stop, or a release, what they were.
func TestHoldSysctls(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	s.extra = object{"hold": object{"interface": "lo", "netns": s.ns.Path, "sysctls": true}}
	s.configure(object{"address": v4a})
	expect := func(when, want string) {
		t.Helper()
		out, err := exec.Command("nsenter", "--net="+s.ns.Path, "cat", "/proc/sys/net/ipv4/conf/all/arp_ignore", "/proc/sys/net/ipv4/conf/all/arp_announce").CombinedOutput()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", when, got, err, want)
		}
	}
	expect("before", "0 0")
	for range 2 {
		s.start()
		s.waitRoutes(v4a)
		s.waitLog("speaker ready", 1)
		expect("while it runs", "1 2")
		s.crash()
		expect("after a crash", "1 2")
	}
	s.start()
	s.waitLog("speaker ready", 1)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	expect("after a stop", "0 0")
	s.start()
	s.waitRoutes(v4a)
	s.crash()
	cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "release", "--config", s.file, "--last", s.file+".last", "--sysctls", s.file+".sysctls")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	expect("after a release", "0 0")
}
