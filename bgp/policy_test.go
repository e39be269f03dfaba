package bgp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// A daemon with policies of its own: a path that it changes is sent once, one that
// it drops or offers to nobody is told of, and nothing flaps.
func TestSpeakerPolicies(t *testing.T) { gobgpdtest.Each(t, testSpeakerPolicies) }

func testSpeakerPolicies(t *testing.T, g gobgpdtest.Generation) {
	const policies = `
[global.apply-policy.config]
import-policy-list = ["change", "drop"]
export-policy-list = ["keep"]
[[defined-sets.prefix-sets]]
prefix-set-name = "changed"
[[defined-sets.prefix-sets.prefix-list]]
ip-prefix = "203.0.113.10/32"
[[defined-sets.prefix-sets]]
prefix-set-name = "dropped"
[[defined-sets.prefix-sets.prefix-list]]
ip-prefix = "203.0.113.11/32"
[[defined-sets.prefix-sets]]
prefix-set-name = "kept"
[[defined-sets.prefix-sets.prefix-list]]
ip-prefix = "203.0.113.12/32"
[[policy-definitions]]
name = "change"
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.match-prefix-set]
prefix-set = "changed"
[policy-definitions.statements.actions.bgp-actions]
set-med = "99"
[[policy-definitions]]
name = "drop"
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.match-prefix-set]
prefix-set = "dropped"
[policy-definitions.statements.actions]
route-disposition = "reject-route"
[[policy-definitions]]
name = "keep"
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.match-prefix-set]
prefix-set = "kept"
[policy-definitions.statements.actions]
route-disposition = "reject-route"
`
	const noNextHop = "routers cannot use an IPv6 path with an IPv4 next hop, and over IPv4 sessions the speaker's own address is one; set next_hop.ipv6"
	s, web := newSite(t, gobgpdtest.Config{Generation: g, Extra: policies}), newService(t)
	always := []object{web.check()} // to count time by
	s.configure(object{"address": v4a, "checks": always}, object{"address": v4b}, object{"address": v4c}, object{"address": v6a})
	s.start()
	s.waitRoutes(v4a, v6a)
	if med := s.router.Learned(t)[host(v4a)].MED; med == nil || *med != 99 {
		t.Fatalf("the policy does not change the path: MED %v", med)
	}
	s.waitLog("announced, and offered to no peer", 1)
	s.waitLog("pass failed", 1)
	s.waitOffers("the policies show", map[string]string{
		v4a: "127.0.1.2: the speaker changes its attributes; is there an import policy?",
		v4b: "-: the speaker took it, and dropped it; does an import policy do that?",
		v4c: "nobody: offered to nobody: an export policy of the speaker drops it",
		v6a: "127.0.1.2: " + noNextHop})
	s.waitLog(noNextHop, 1)
	s.waitLog("the speaker changes the attributes of what we announce; is there an import policy?", 1)
	before, asked := s.router.Updates(t), web.asked.Load()
	s.eventually("three periodic passes", func() error {
		if web.asked.Load() < asked+60 {
			return context.DeadlineExceeded
		}
		return nil
	})
	if got := s.router.Updates(t) - before; got != 0 {
		t.Errorf("%d UPDATEs while nothing changes", got)
	}
	for msg, most := range map[string]int{"pass failed": 1, "announced": 3,
		"the speaker changes the attributes of what we announce; is there an import policy?": 1} {
		if n := s.count(msg); n > most {
			t.Errorf("%q is logged %d times", msg, n)
		}
	}
	var failed string
	for _, l := range s.logged() {
		if l.Msg == "pass failed" {
			failed = l.Error
		}
	}
	if !strings.Contains(failed, "announce of 203.0.113.11/32: the speaker took it, and nothing changed; does an import policy drop it?") {
		t.Errorf("the error is %q", failed)
	}
	if out, _ := s.plasmactl("vip", "events"); !strings.Contains(out, v4c+"       not_offered") || !strings.Contains(out, v4a+"       changed") || strings.Count(out, "  dropped  ") != 1 {
		t.Errorf("events are\n%s", out)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitHeld()
	// Another announcer finds paths that it did not send, and sees it all the same.
	s.start()
	s.waitRoutes(v4a, v6a)
	s.crash()
	address := fmt.Sprintf("127.0.0.1:%d", gobgpdtest.FreePort(t, "127.0.0.1"))
	s.extra = object{"metrics": object{"listen": address}, "next_hop": object{"ipv6": "2001:db8:0:1::11"}}
	s.configure(object{"address": v4c}, object{"address": v6a})
	s.start()
	s.waitOffers("they still show", map[string]string{v4c: "nobody: offered to nobody: an export policy of the speaker drops it", v6a: "127.0.1.2: "})
	s.waitMetrics(address, "plasmacloud_announcer_vips_not_offered 1\n", "plasmacloud_announcer_vips_missing 0\n")
	s.daemon.Kill()
	const away = "-: waits for the speaker: speaker is not running"
	s.waitOffers("the speaker is away", map[string]string{v4c: away, v6a: away})
}

// waitOffers returns when the announcer says so of its VIPs: to whom they are offered, and
// the beginning of their trouble.
func (s *site) waitOffers(what string, want map[string]string) {
	s.t.Helper()
	s.eventually(what, func() error {
		out, status := s.plasmactl("vip", "list", "-o", "json")
		var state struct {
			Status struct {
				VIPs []struct {
					Address, Trouble string
					OfferedTo        []string `json:"offered_to"`
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &state); status != 0 || err != nil || len(state.Status.VIPs) != len(want) {
			return fmt.Errorf("status %d: %s", status, out)
		}
		for _, v := range state.Status.VIPs {
			to := strings.Join(v.OfferedTo, " ")
			switch {
			case v.OfferedTo == nil:
				to = "-"
			case to == "":
				to = "nobody"
			}
			got := to + ": " + v.Trouble
			if w := want[v.Address]; !strings.HasPrefix(got, w) || v.Trouble == "" != strings.HasSuffix(w, ": ") {
				return fmt.Errorf("%s: %s", v.Address, got)
			}
		}
		return nil
	})
}
