package bgp

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// refusingSpeaker refuses one prefix.
type refusingSpeaker struct {
	worldSpeaker
	refuses netip.Prefix
}

func (s refusingSpeaker) Announce(ctx context.Context, paths []speaker.Path) error {
	refused := &speaker.PathErrors{ByPrefix: map[netip.Prefix]error{}}
	for _, p := range paths {
		if p.Prefix == s.refuses {
			refused.ByPrefix[p.Prefix] = errors.New("nexthop not found")
		} else if err := s.worldSpeaker.Announce(ctx, []speaker.Path{p}); err != nil {
			return err
		}
	}
	if len(refused.ByPrefix) > 0 {
		return refused
	}
	return nil
}

// Of a VIP that is wanted and not announced, the status says in words what keeps it.
func TestTrouble(t *testing.T) {
	w := newWorld(time.Second, t.Errorf)
	cfg := testConfig(4)
	for i := range cfg.VIPs[:3] {
		cfg.VIPs[i].Checks = nil
	}
	s := refusingSpeaker{worldSpeaker{w}, speaker.HostPrefix(cfg.VIPs[1].Address)}
	a := New(Options{Config: cfg, Speaker: s, Holder: worldHolder{w}})
	a.health = func(health.Check) health.State { return health.State{Status: health.Down, Reason: "refused"} }
	want := func(wants ...string) {
		t.Helper()
		a.pass(t.Context(), false)
		for i, v := range a.Status().VIPs {
			if v.Trouble != wants[i] {
				t.Errorf("%s: %q, want %q", v.Address, v.Trouble, wants[i])
			}
		}
	}
	w.bindFails[cfg.VIPs[0].Address] = true
	const bind, refused = "cannot be held: bind 203.0.113.1: no buffer space", "the speaker refuses it: nexthop not found"
	want(bind, refused, "was sent to the speaker a moment ago", "")
	want(bind, refused, "", "")
	w.listFails = true
	const unknown = "waits for the host: list what the host holds: dump interrupted"
	want(unknown, unknown, "may not be held: list what the host holds: dump interrupted", "")
	w.listFails, w.away = false, speaker.ErrGone
	const away = "waits for the speaker: speaker is not running"
	want(bind, away, away, "")
	clear(w.bindFails)
	w.away = nil
	s.refuses = netip.Prefix{}
	a.speaker = s
	a.pass(t.Context(), false)
	want("", "", "", "")
	if last := a.Status().VIPs[3]; last.Want != Withdraw || last.Why == "" {
		t.Errorf("the VIP that is down: %+v", last)
	}
}
