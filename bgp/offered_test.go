package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// countingSpeaker counts the looks at what is offered.
type countingSpeaker struct {
	worldSpeaker
	looks atomic.Int64
}

func (s *countingSpeaker) Advertised(ctx context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	s.looks.Add(1)
	return s.worldSpeaker.Advertised(ctx, prefixes)
}

// Status says to whom VIPs are offered, also where a policy that drops one comes and goes
// later, and while no router has a session. While nothing happens, the speaker is asked
// once a minute.
func TestOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, t.Errorf)
		cfg := testConfig(3)
		s := &countingSpeaker{worldSpeaker: worldSpeaker{w}}
		a := New(Options{Config: cfg, Speaker: s, Holder: worldHolder{w}, Probe: func(context.Context, health.Check) error { return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- a.Run(ctx) }()
		change := func(f func()) {
			w.mu.Lock()
			defer w.mu.Unlock()
			f()
		}
		want := func(after time.Duration, what string, notOffered int, offers ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			status := a.Status()
			var got []string
			for _, v := range status.VIPs {
				text := fmt.Sprint(v.Offered)
				if !v.Looked {
					text = "unknown"
				}
				got = append(got, text+v.Trouble)
			}
			if !slices.Equal(got, offers) || status.NotOffered != notOffered {
				t.Errorf("%s: %d, %q", what, status.NotOffered, got)
			}
		}
		const router, filtered = "[192.0.2.1]", "[]offered to nobody: an export policy of the speaker drops it"
		want(500*time.Millisecond, "not looked at yet", 0, "unknown", "unknown", "unknown")
		want(2*time.Second, "all are offered", 0, router, router, router)
		change(func() { w.filtered = map[netip.Prefix]bool{speaker.HostPrefix(cfg.VIPs[1].Address): true} })
		want(lookEvery, "a policy is new", 1, router, filtered, router)
		before := s.looks.Load()
		want(10*lookEvery, "and stays", 1, router, filtered, router)
		if n := s.looks.Load() - before; n < 9 || n > 11 {
			t.Errorf("%d looks in ten minutes", n)
		}
		const alone = "[]offered to nobody: no router has a session with the speaker"
		change(func() { w.session = false })
		want(11*time.Second, "no session", 3, alone, alone, alone)
		change(func() { w.session, w.filtered = true, nil })
		want(12*time.Second, "a session, and no policy", 0, router, router, router)
		change(func() { w.away = speaker.ErrNoAnswer })
		const away = "unknownwaits for the speaker: speaker does not answer"
		want(11*time.Second, "no answer", 0, away, away, away)
		change(func() { w.away = nil })
		time.Sleep(10 * time.Second)
		kinds := map[EventKind]int{}
		page, err := a.Events().After("", cfg.VIPs[1].Address, 1000)
		for _, e := range page.Events {
			kinds[e.Kind]++
		}
		if err != nil || kinds[EventNotOffered] != 1 || kinds[EventOffered] != 1 {
			t.Errorf("events: %v, %v", kinds, err)
		}
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
