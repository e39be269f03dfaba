package bgp_test

import (
	"fmt"
	"maps"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/vip"
)

// preferSpeaker is a router's policy that prefers the speaker's paths, but as RFC 8326
// (section 4.2) wants it not those with GRACEFUL_SHUTDOWN.
const preferSpeaker = `
[global.apply-policy.config]
import-policy-list = ["prefer"]
[[defined-sets.bgp-defined-sets.community-sets]]
community-set-name = "leaving"
community-list = ["65535:0"]
[[defined-sets.neighbor-sets]]
neighbor-set-name = "speaker"
neighbor-info-list = ["127.0.1.1"]
[[policy-definitions]]
name = "prefer"
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.bgp-conditions.match-community-set]
community-set = "leaving"
[policy-definitions.statements.actions]
route-disposition = "accept-route"
[policy-definitions.statements.actions.bgp-actions]
set-local-pref = 1
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.match-neighbor-set]
neighbor-set = "speaker"
[policy-definitions.statements.actions]
route-disposition = "accept-route"
[policy-definitions.statements.actions.bgp-actions]
set-local-pref = 200
`

// keepForItself is a router's policy to tell the speaker nothing. Of one in its own AS
// the speaker would take the other path for better, and withdraw ours at once.
const keepForItself = `
[global.apply-policy.config]
default-export-policy = "reject-route"
`

// A router with another path for a VIP changes to it before ours is withdrawn, whether
// it goes by the community, being of another AS, or by the local preference.
func TestGracefulShutdown(t *testing.T) { gobgpdtest.Each(t, testGracefulShutdown) }

func testGracefulShutdown(t *testing.T, g gobgpdtest.Generation) {
	for asn, policy := range map[uint32]string{gobgpdtest.RouterASN: preferSpeaker, gobgpdtest.SpeakerASN: keepForItself} {
		t.Run(fmt.Sprint("router of AS ", asn), func(t *testing.T) {
			t.Parallel()
			gracefulShutdown(t, gobgpdtest.Config{Generation: g, PeerASN: asn, RouterExtra: policy})
		})
	}
}

func gracefulShutdown(t *testing.T, cfg gobgpdtest.Config) {
	const delay = 800 * time.Millisecond
	s, web := newSite(t, cfg), newService(t)
	s.router.AddForeign(t, host(v4a), "127.0.1.2") // the other path
	s.extra = object{"graceful_shutdown": object{"delay": delay.String(), "on_health": false}}
	vips := []object{
		{"address": v4a, "communities": []string{"65001:100"}, "local_pref": 200},
		{"address": v4b, "checks": []object{web.check()}}}
	s.configure(vips...)
	// see waits until the router has ours, or not, and sends traffic to it, or elsewhere,
	// and returns when it was not so yet, and when it was: a busy machine looks late.
	see := func(what string, want map[string]bool) (before, after time.Time) {
		t.Helper()
		before = time.Now()
		s.eventually("the router has "+what, func() error {
			asked := time.Now()
			routes, err := s.router.Routes(t.Context())
			got := map[string]bool{}
			for _, r := range routes {
				if r.Prefix == host(v4a) && r.Peer.IsValid() {
					got["ours"], got["best"] = true, r.Best
				}
			}
			if err == nil && !maps.Equal(got, want) {
				before, err = asked, fmt.Errorf("has %+v", routes)
			}
			return err
		})
		return before, time.Now()
	}
	leaves := func(do func()) {
		t.Helper()
		removed, updates := s.removals(), s.router.Updates(t)
		do()
		lowered, _ := see("ours, and prefers the other path", map[string]bool{"ours": true, "best": false})
		if s.held().Own[netip.MustParseAddr(v4a)] == vip.None {
			t.Error("not held while the router still has the path")
		}
		before, gone := see("the other path alone", map[string]bool{})
		if after := gone.Sub(lowered); after < delay/2 {
			t.Errorf("withdrawn %s after it was lowered", after)
		}
		if after := removed.wait(v4a).Sub(before); after < drainDelay/2 {
			t.Errorf("released %s after the withdraw", after)
		}
		if got := s.router.Updates(t) - updates; got != 2 {
			t.Errorf("%d UPDATEs, want one for each step", got)
		}
	}
	s.start()
	see("ours, and prefers it", map[string]bool{"ours": true, "best": true})
	s.waitRoutes(v4a, v4b)
	web.bad.Store(true)
	s.waitRoutes(v4a)
	if n := s.count("lowered"); n != 0 {
		t.Error("lowered for a check, which is not what was asked for")
	}
	leaves(func() {
		if out, status := s.plasmactl("vip", "drain", v4a, "--reason", "test"); status != 0 {
			t.Fatal(out)
		}
	})
	if out, status := s.plasmactl("vip", "undrain", v4a); status != 0 {
		t.Fatal(out)
	}
	see("ours, and prefers it again", map[string]bool{"ours": true, "best": true})
	s.waitHeld(v4a)
	if got := fmt.Sprint(s.router.Learned(t)[host(v4a)].Communities); got != "[65001:100]" {
		t.Errorf("communities are %s", got)
	}
	// A crash in the middle: the next one goes on from what it finds.
	s.signal(syscall.SIGTERM)
	s.waitLog("lowered", 2)
	s.crash()
	before := s.router.Updates(t)
	s.configure(vips[1])
	s.start()
	see("the other path alone", map[string]bool{})
	if got := s.router.Updates(t) - before; got != 1 {
		t.Errorf("%d UPDATEs after the crash, want the withdraw", got)
	}
	if n := s.count("lowered"); n != 0 {
		t.Error("lowered again")
	}
	s.configure(vips...)
	s.signal(syscall.SIGHUP)
	see("ours, and prefers it", map[string]bool{"ours": true, "best": true})
	leaves(func() { s.signal(syscall.SIGTERM) })
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitHeld()
}

// By the MED: a router without any policy sees it raised before the withdraw, and as it
// was when the VIP is wanted again.
func TestGracefulShutdownByMED(t *testing.T) { gobgpdtest.Each(t, testGracefulShutdownByMED) }

func testGracefulShutdownByMED(t *testing.T, g gobgpdtest.Generation) {
	const delay = 4 * time.Second // a busy machine looks late
	s := newSite(t, gobgpdtest.Config{Generation: g})
	s.extra = object{"graceful_shutdown": object{"delay": delay.String(), "by": "med"}}
	s.configure(object{"address": v4a, "communities": []string{"65001:100"}, "med": 7}, object{"address": v6a})
	s.start()
	// med waits until the router has v with that MED, and returns when it was not so yet.
	med := func(v, want string) (before time.Time) {
		t.Helper()
		before = time.Now()
		s.eventually("the MED of "+v+" is "+want, func() error {
			asked := time.Now()
			r, is := s.router.Learned(t)[host(v)]
			got := "none"
			if r.MED != nil {
				got = fmt.Sprint(*r.MED)
			}
			if !is || got != want {
				before = asked
				return fmt.Errorf("%v, MED %s", is, got)
			}
			if text := fmt.Sprint(r.Communities); v == v4a && text != "[65001:100]" || r.LocalPref != nil && *r.LocalPref == 0 {
				t.Errorf("communities are %s, local preference %v", text, r.LocalPref)
			}
			return nil
		})
		return before
	}
	med(v4a, "7")
	if out, status := s.plasmactl("vip", "drain", v4a, "--reason", "test"); status != 0 {
		t.Fatal(out)
	}
	med(v4a, "4294967295")
	if out, status := s.plasmactl("vip", "undrain", v4a); status != 0 {
		t.Fatal(out)
	}
	med(v4a, "7")
	s.signal(syscall.SIGTERM)
	raised := med(v4a, "4294967295")
	med(v6a, "4294967295")
	s.waitRoutes()
	if after := time.Since(raised); after < delay/2 {
		t.Errorf("withdrawn %s after the MED was raised", after)
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitHeld()
}
