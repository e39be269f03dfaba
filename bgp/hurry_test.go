package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// slowSpeaker takes an hour for the call of that name, or 9 s, as the host may. Unlike a world it may be called
// concurrently, as may turnHolder with the same turn.
type slowSpeaker struct {
	worldSpeaker
	turn *sync.Mutex
	slow *atomic.Value
	dies chan error
}

func newSlowSpeaker(w *world) slowSpeaker {
	s := slowSpeaker{worldSpeaker{w}, new(sync.Mutex), new(atomic.Value), make(chan error)}
	s.slow.Store("")
	return s
}

// take waits for the turn, which the caller ends.
func (s slowSpeaker) take(call string) *sync.Mutex {
	switch slow := s.slow.Load() == call; {
	case slow && call == "bind":
		time.Sleep(9 * time.Second)
	case slow:
		time.Sleep(time.Hour)
	}
	s.turn.Lock()
	return s.turn
}

func (s slowSpeaker) List(ctx context.Context) (speaker.Table, error) {
	defer s.take("List").Unlock()
	return s.worldSpeaker.List(ctx)
}

func (s slowSpeaker) Announce(ctx context.Context, paths []speaker.Path) error {
	defer s.take("Announce").Unlock()
	return s.worldSpeaker.Announce(ctx, paths)
}

func (s slowSpeaker) Withdraw(ctx context.Context, prefixes []netip.Prefix) error {
	defer s.take("Withdraw").Unlock()
	return s.worldSpeaker.Withdraw(ctx, prefixes)
}

func (s slowSpeaker) Advertised(ctx context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	defer s.take("Advertised").Unlock()
	return s.worldSpeaker.Advertised(ctx, prefixes)
}

func (s slowSpeaker) Filtered(ctx context.Context, prefixes []netip.Prefix) (map[netip.Prefix]bool, error) {
	defer s.take("Filtered").Unlock()
	return s.worldSpeaker.Filtered(ctx, prefixes)
}

func (s slowSpeaker) Watch(ctx context.Context, changed func()) error {
	changed()
	select {
	case err := <-s.dies:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

type turnHolder struct {
	worldHolder
	s slowSpeaker
}

func (h turnHolder) List(ctx context.Context) (vip.Held, error) {
	defer h.s.take("held").Unlock()
	return h.worldHolder.List(ctx)
}

func (h turnHolder) Bind(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	defer h.s.take("bind").Unlock()
	return h.worldHolder.Bind(ctx, how, addrs)
}

func (h turnHolder) Release(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	defer h.s.take("release").Unlock()
	return h.worldHolder.Release(ctx, how, addrs)
}

// hurryTest has VIPs whose checks are good until told otherwise; the last one's is bad.
type hurryTest struct {
	*world
	slowSpeaker
	cfg *Config
	bad [3]atomic.Bool
	a   *Announcer
}

func newHurryTest(t *testing.T, change ...func(*Config)) *hurryTest {
	w := newWorld(time.Second, t.Errorf)
	h := &hurryTest{world: w, slowSpeaker: newSlowSpeaker(w), cfg: testConfig(3)}
	for _, f := range change {
		f(h.cfg)
	}
	for _, v := range h.cfg.VIPs {
		w.holds[v.Address] = v.Hold
	}
	h.bad[2].Store(true)
	h.a = New(Options{Config: h.cfg, Speaker: h.slowSpeaker, Holder: turnHolder{worldHolder{w}, h.slowSpeaker}, Probe: func(_ context.Context, c health.Check) error {
		for i := range h.bad {
			if c == checkOf(i) && h.bad[i].Load() {
				return errors.New("answers badly")
			}
		}
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.a.Run(ctx) }()
	t.Cleanup(func() {
		h.slow.Store("")
		time.Sleep(4 * time.Hour)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	h.after(t, 15*time.Second, 0, 1)
	return h
}

// after checks which VIPs the router has after a time.
func (h *hurryTest) after(t *testing.T, d time.Duration, want ...int) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	h.turn.Lock()
	defer h.turn.Unlock()
	var has []int
	for i, v := range h.cfg.VIPs {
		if h.routes[speaker.HostPrefix(v.Address)] {
			has = append(has, i)
		}
	}
	if !slices.Equal(has, want) {
		t.Errorf("the router has %v, want %v", has, want)
	}
}

// A VIP whose check goes down is withdrawn at once, whatever the pass under way waits
// for; the pass then does nothing more about it.
func TestHurry(t *testing.T) {
	for _, slow := range []string{"List", "bind", "Announce", "Advertised"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHurryTest(t)
				h.slow.Store(slow)
				h.bad[2].Store(false) // so that a pass has something to do
				time.Sleep(5 * time.Second)
				h.bad[0].Store(true)
				if slow == "Advertised" {
					h.after(t, 3*time.Second, 1, 2)
				} else {
					h.after(t, 3*time.Second, 1)
				}
				if h.withdrawn != 1 {
					t.Errorf("%d withdraws", h.withdrawn)
				}
				h.after(t, 8*time.Hour, 1, 2)
				if h.withdrawn != 1 || h.released != 1 {
					t.Errorf("%d withdraws, %d releases", h.withdrawn, h.released)
				}
			})
		})
	}
}

// What goes down while the speaker takes it is withdrawn once it has, and what goes down
// before is not announced.
func TestHurryOfWhatIsBeingAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHurryTest(t)
		h.slow.Store("Announce")
		h.bad[2].Store(false)
		time.Sleep(15 * time.Second)
		h.bad[2].Store(true)
		h.after(t, 10*time.Minute, 0, 1)
		h.slow.Store("")
		h.after(t, 55*time.Minute, 0, 1)
		if h.announced != 3 || h.withdrawn != 1 {
			t.Errorf("%d announced, %d withdrawn", h.announced, h.withdrawn)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHurryTest(t)
		h.slow.Store("bind")
		h.bad[2].Store(false)
		time.Sleep(5 * time.Second)
		h.bad[2].Store(true)
		h.after(t, time.Minute, 0, 1)
		if h.announced != 2 || h.withdrawn != 0 {
			t.Errorf("%d announced, %d withdrawn", h.announced, h.withdrawn)
		}
	})
}

// What goes down and comes back while a pass waits is withdrawn, and so costs a penalty; it
// costs one where the next pass sees it down, too.
func TestHurryIsDamped(t *testing.T) {
	for name, comesBack := range map[string]bool{"it comes back": true, "it stays down": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHurryTest(t, func(cfg *Config) {
					cfg.VIPs[0].Damping = Damping{Penalty: 1000, Suppress: 10_000, Reuse: 500, HalfLife: 24 * time.Hour}
				})
				h.slow.Store("List")
				time.Sleep(time.Minute)
				h.bad[0].Store(true)
				h.after(t, 5*time.Second, 1)
				h.bad[0].Store(!comesBack)
				time.Sleep(5 * time.Second)
				h.slow.Store("")
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if v := h.a.Status().VIPs[0]; v.Announced != comesBack || v.Damping.Penalty < 900 || v.Damping.Penalty > 1000 {
					t.Errorf("%+v", v)
				}
			})
		})
	}
}

// Many VIPs of one check that wait for the speaker are one thing to look at again.
func TestHurryWaitsForManyVIPs(t *testing.T) {
	cfg := testConfig(100)
	for i := range cfg.VIPs {
		cfg.VIPs[i].Checks = cfg.VIPs[0].Checks
	}
	w := newWorld(time.Second, t.Errorf)
	a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}})
	sending := map[netip.Prefix]bool{}
	for _, v := range cfg.VIPs {
		sending[speaker.HostPrefix(v.Address)] = true
	}
	a.haste.known, a.haste.sending = true, []map[netip.Prefix]bool{sending, {}}
	for range 3 {
		a.hasFallen(cfg.VIPs[0].Checks[0])
		a.hurry(t.Context())
	}
	if len(a.down) != 1 {
		t.Errorf("%d checks to look at again", len(a.down))
	}
}

// A speaker that was started again is filled at once, whatever the pass before took, and
// nobody is blamed for what it lost.
func TestSpeakerRestartsBetweenPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHurryTest(t)
		restart := func() {
			h.turn.Lock()
			h.restartSpeaker()
			h.setSession(true)
			h.turn.Unlock()
			h.after(t, 0)
			h.dies <- speaker.ErrGone
		}
		h.slow.Store("List")
		h.bad[2].Store(false) // so that a pass starts, which takes an hour
		time.Sleep(time.Minute)
		h.slow.Store("")
		h.after(t, time.Hour, 0, 1, 2)
		restart() // while nothing else would start a pass for as long
		h.after(t, time.Second, 0, 1, 2)
		h.slow.Store("held")
		h.bad[2].Store(true)
		h.after(t, time.Minute, 0, 1)
		restart()
		h.slow.Store("")
		h.after(t, time.Hour, 0, 1)
		h.dies <- fmt.Errorf("%w: %w", speaker.ErrNoAnswer, context.DeadlineExceeded) // it was late once
		h.after(t, time.Hour, 0, 1)
		var kinds []EventKind
		events, _ := all(t, h.a.Events(), "", netip.Addr{}, 1000)
		for _, e := range events {
			switch e.Kind {
			case EventGone, EventDropped, EventSpeakerNotReady, EventSpeakerReady:
				kinds = append(kinds, e.Kind)
			}
		}
		want := []EventKind{EventSpeakerReady, EventSpeakerNotReady, EventSpeakerReady, EventSpeakerNotReady, EventSpeakerReady}
		if !slices.Equal(kinds, want) {
			t.Errorf("the events are %v", kinds)
		}
	})
}
