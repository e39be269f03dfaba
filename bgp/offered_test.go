package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// offeringSpeaker counts the looks at what is offered. These and Announce may take their time, and
// Announce may fail although it did all.
type offeringSpeaker struct {
	worldSpeaker
	looks                 atomic.Int64
	looking, announcing   time.Duration
	announceFails, downed atomic.Bool
}

func (s *offeringSpeaker) Advertised(ctx context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	s.looks.Add(1)
	time.Sleep(s.looking)
	return s.worldSpeaker.Advertised(ctx, prefixes)
}

func (s *offeringSpeaker) Announce(ctx context.Context, paths []speaker.Path) error {
	err := s.worldSpeaker.Announce(ctx, paths)
	time.Sleep(s.announcing)
	if s.announceFails.Load() {
		err = speaker.ErrNoAnswer
	}
	return err
}

// newOffering runs an announcer of n VIPs with s, and of the last one's checks, all are bad
// while downed is.
func newOffering(t *testing.T, s *offeringSpeaker, n int) *Announcer {
	s.worldSpeaker = worldSpeaker{newWorld(time.Second, t.Errorf)}
	a := New(Options{Config: testConfig(n), Speaker: s, Holder: worldHolder{s.world}, Probe: func(_ context.Context, c health.Check) error {
		if c == checkOf(n-1) && s.downed.Load() {
			return errors.New("answers badly")
		}
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return a
}

// offersOf is what s says of to whom VIPs are offered.
func offersOf(s Status) []string {
	var got []string
	for _, v := range s.VIPs {
		text := fmt.Sprint(v.Offered)
		if !v.Looked {
			text = "unknown"
		}
		got = append(got, text+v.Trouble)
	}
	return got
}

const toRouter, toNobody = "[192.0.2.1]", "[]offered to nobody: an export policy of the speaker drops it"

// filter has an export policy drop the VIPs, and no others.
func (w *world) filter(vips ...VIP) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filtered = map[netip.Prefix]bool{}
	for _, v := range vips {
		w.filtered[speaker.HostPrefix(v.Address)] = true
	}
}

// What is new is not said to be offered before that was looked at, and is looked at soon,
// however long the passes take: no look goes by what the pass before one saw.
func TestOfferedWherePassesAreSlow(t *testing.T) {
	for name, fails := range map[string]bool{"and good": false, "and fail": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &offeringSpeaker{announcing: 3 * time.Second}
				a := newOffering(t, s, 1)
				time.Sleep(9 * time.Second)
				if got := offersOf(a.Status()); !slices.Equal(got, []string{toRouter}) {
					t.Errorf("at first %q", got)
				}
				cfg := testConfig(3)
				s.filter(cfg.VIPs[1])
				s.announceFails.Store(fails)
				if err := a.Reload(cfg); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				s.announceFails.Store(false)
				var got []string
				for range 150 {
					time.Sleep(100 * time.Millisecond)
					if got = offersOf(a.Status()); len(got) > 1 && strings.HasPrefix(got[1], toRouter) {
						t.Fatalf("said to be offered: %q", got)
					}
				}
				if n := a.Status().NotOffered; n != 1 || !slices.Equal(got, []string{toRouter, toNobody, toRouter}) {
					t.Errorf("%d, %q", n, got)
				}
			})
		})
	}
}

// What is withdrawn does not count as offered to nobody, in what each pass tells either.
func TestNotOfferedAndWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(offeringSpeaker)
		a := newOffering(t, s, 1)
		var told atomic.Value
		a.OnPass(func(s Status) { told.Store(s.String()) })
		s.filter(a.config().VIPs...)
		time.Sleep(15 * time.Second)
		if got := fmt.Sprint(told.Load()); got != "announced 1 of 1 healthy VIPs; 1 offered to no peer; speaker: ready" {
			t.Error(got)
		}
		s.downed.Store(true)
		for range 20 {
			time.Sleep(time.Second)
			got, status := fmt.Sprint(told.Load()), a.Status()
			if v := status.VIPs[0]; !v.Announced && (status.NotOffered != 0 || strings.Contains(got, "no peer")) {
				t.Fatalf("%d, %s", status.NotOffered, got)
			}
		}
		if a.Status().VIPs[0].Announced {
			t.Error("not withdrawn")
		}
	})
}

// A look during which something was done comes to nothing, and is made up for soon. A check
// that goes down where nothing is announced does nothing.
func TestLookInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &offeringSpeaker{looking: 2 * time.Second}
		a := newOffering(t, s, 2)
		time.Sleep(1900 * time.Millisecond)
		if s.looks.Load() != 1 {
			t.Fatalf("%d looks", s.looks.Load())
		}
		s.downed.Store(true)
		time.Sleep(1500 * time.Millisecond)
		if v := a.Status().VIPs; v[0].Looked || v[1].Announced {
			t.Errorf("took what was asked meanwhile: %+v", v)
		}
		time.Sleep(vainShare*s.looking + 5*time.Second)
		if got := offersOf(a.Status()); got[0] != toRouter {
			t.Errorf("after the next look %q", got)
		}
		acts := func() uint64 {
			a.offers.mu.Lock()
			defer a.offers.mu.Unlock()
			return a.offers.acts
		}
		before := acts()
		a.hasFallen(checkOf(1))
		time.Sleep(time.Millisecond)
		if n := acts() - before; n != 0 {
			t.Errorf("did %d things for a check that was down before", n)
		}
	})
}

// Status says to whom VIPs are offered, also where a policy that drops one comes and goes
// later, and while no router has a session. While nothing happens, the speaker is asked
// once a minute.
func TestOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(offeringSpeaker)
		a := newOffering(t, s, 3)
		w, cfg := s.world, a.config()
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
			got := offersOf(status)
			if !slices.Equal(got, offers) || status.NotOffered != notOffered {
				t.Errorf("%s: %d, %q", what, status.NotOffered, got)
			}
		}
		want(500*time.Millisecond, "not looked at yet", 0, "unknown", "unknown", "unknown")
		want(2*time.Second, "all are offered", 0, toRouter, toRouter, toRouter)
		w.filter(cfg.VIPs[1])
		want(lookEvery, "a policy is new", 1, toRouter, toNobody, toRouter)
		before := s.looks.Load()
		want(10*lookEvery, "and stays", 1, toRouter, toNobody, toRouter)
		if n := s.looks.Load() - before; n < 9 || n > 11 {
			t.Errorf("%d looks in ten minutes", n)
		}
		const alone = "[]offered to nobody: no router has a session with the speaker"
		change(func() { w.session = false })
		want(11*time.Second, "no session", 3, alone, alone, alone)
		change(func() { w.session, w.filtered = true, nil })
		want(12*time.Second, "a session, and no policy", 0, toRouter, toRouter, toRouter)
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
	})
}
