package bgp

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// stuckHolder releases all but one address.
type stuckHolder struct {
	worldHolder
	stuck *netip.Addr
}

func (h stuckHolder) Release(ctx context.Context, how vip.How, addrs []netip.Addr) error {
	if !slices.Contains(addrs, *h.stuck) {
		return h.worldHolder.Release(ctx, how, addrs)
	}
	rest := without(addrs, []netip.Addr{*h.stuck})
	return errors.Join(h.worldHolder.Release(ctx, how, rest), &vip.AddrError{Addr: *h.stuck, Do: "release", Err: errors.New("device or resource busy")})
}

// What was released is told, also where something else in the same pass failed: another
// address, or a drain that cannot begin for want of a session. So nobody is blamed for it.
func TestReleaseIsTold(t *testing.T) {
	for name, test := range map[string]struct {
		together bool // both go down at once
		hinder   func(w *world, stuck, second *netip.Addr)
	}{
		"a drain that waits":     {false, func(w *world, _, _ *netip.Addr) { w.setSession(false) }},
		"an address that is not": {true, func(_ *world, stuck, second *netip.Addr) { *stuck = *second }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig(2)
				w, stuck := newWorld(cfg.DrainDelay, t.Errorf), new(netip.Addr)
				first, second := cfg.VIPs[0].Address, cfg.VIPs[1].Address
				a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: stuckHolder{worldHolder{w}, stuck}})
				down := map[health.Check]bool{}
				a.health = func(c health.Check) health.State {
					if down[c] {
						return health.State{Status: health.Down}
					}
					return health.State{Status: health.Up}
				}
				pass := func() result { return a.pass(t.Context(), false) }
				pass()
				down[checkOf(0)], down[checkOf(1)] = true, test.together
				pass()
				pass() // the drain begins
				test.hinder(w, stuck, &second)
				down[checkOf(1)] = true
				pass()
				time.Sleep(cfg.DrainDelay)
				if r := pass(); r.err == nil || w.own[first] != vip.None {
					t.Fatalf("%v, held as %s", r.err, w.own[first])
				}
				down[checkOf(0)] = false
				w.setSession(true)
				pass()
				page, err := a.Events().After("", first, 100)
				if err != nil {
					t.Fatal(err)
				}
				var told []EventKind
				for _, e := range page.Events {
					told = append(told, e.Kind)
				}
				want := []EventKind{EventWanted, EventHeld, EventAnnounced, EventUnwanted, EventWithdrawn, EventReleased, EventWanted, EventHeld, EventAnnounced}
				if !slices.Equal(told, want) {
					t.Errorf("told are %v, want %v", told, want)
				}
				if w.own[second] == vip.None {
					t.Error("the other one was released, too")
				}
			})
		})
	}
}

// offersOnSpeaker offers peers what is withdrawn until it is over, or does not say what it offers.
type offersOnSpeaker struct {
	worldSpeaker
	until time.Time
	err   error
}

func (s offersOnSpeaker) Advertised(ctx context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	got, err := s.worldSpeaker.Advertised(ctx, prefixes)
	for _, p := range prefixes {
		if time.Now().Before(s.until) && got.To[p] == nil {
			got.To[p] = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		}
	}
	return got, errors.Join(err, s.err)
}

// The delay begins once no peer is offered the path any more; where a speaker does not say
// so within the time of a request, it begins all the same.
func TestDrainWaitsForOffers(t *testing.T) {
	for name, test := range map[string]struct {
		slow, after time.Duration
		err         error
	}{
		"at once":         {0, 0, nil},
		"slow":            {time.Second, time.Second, nil},
		"for ever":        {time.Hour, 2 * time.Second, nil},
		"it does not say": {0, 2 * time.Second, speaker.ErrNoAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig(1)
				w := newWorld(cfg.DrainDelay, t.Errorf)
				began := time.Now()
				a := New(Options{Config: cfg, Speaker: offersOnSpeaker{worldSpeaker{w}, began.Add(test.slow), test.err}, Holder: worldHolder{w}})
				a.health = func(health.Check) health.State { return health.State{Status: health.Up} }
				a.pass(t.Context(), false)
				a.SetDrainOrders(DrainOrders{Node: &DrainOrder{}})
				const step = 100 * time.Millisecond
				for len(w.own) > 0 && time.Since(began) < time.Minute {
					if a.pass(t.Context(), false); len(w.own) > 0 {
						time.Sleep(step)
					}
				}
				if took := time.Since(began) - cfg.DrainDelay; took < test.after || took > test.after+3*step {
					t.Errorf("released %s after the withdraw and the delay, want %s", took, test.after)
				}
			})
		})
	}
}

// busyOnSpeaker takes 50 ms to say what it offers, and counts how often it was asked.
type busyOnSpeaker struct {
	worldSpeaker
	asked *int
}

func (s busyOnSpeaker) Advertised(ctx context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	*s.asked++
	time.Sleep(50 * time.Millisecond)
	return s.worldSpeaker.Advertised(ctx, prefixes)
}

// Where VIPs leave one after the other a speaker that is long about its answers is not
// asked for each of them, and all are let go.
func TestDrainsShareQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const vips = 20
		cfg := testConfig(vips)
		w := newWorld(cfg.DrainDelay, t.Errorf)
		asked := 0
		a := New(Options{Config: cfg, Speaker: busyOnSpeaker{worldSpeaker{w}, &asked}, Holder: worldHolder{w}})
		a.health = func(health.Check) health.State { return health.State{Status: health.Up} }
		a.pass(t.Context(), false)
		orders := map[netip.Addr]DrainOrder{}
		for _, v := range cfg.VIPs { // one each 100 ms
			orders = maps.Clone(orders)
			orders[v.Address] = DrainOrder{}
			a.SetDrainOrders(DrainOrders{VIPs: orders})
			a.pass(t.Context(), false)
			time.Sleep(20 * time.Millisecond)
			a.pass(t.Context(), false)
			time.Sleep(80 * time.Millisecond)
		}
		if asked > 5 {
			t.Errorf("%d questions in two seconds", asked)
		}
		for len(w.own) > 0 {
			next := a.pass(t.Context(), false).next
			if next.IsZero() && len(w.own) > 0 {
				t.Fatalf("nothing is to come, and %d are held", len(w.own))
			}
			time.Sleep(time.Until(next))
		}
		if w.released != vips {
			t.Errorf("%d of %d were let go", w.released, vips)
		}
	})
}

// Who only takes down what is there asks no check, and so runs no program.
func TestStopAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(2)
		w := newWorld(cfg.DrainDelay, t.Errorf)
		w.own[cfg.VIPs[0].Address] = vip.Address
		asked := 0
		a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}, Probe: func(context.Context, health.Check) error { asked++; return nil }})
		stopped, stop := context.WithCancel(t.Context())
		stop()
		if err := a.Run(stopped); err != nil || asked != 0 || len(w.own) != 0 {
			t.Errorf("%v, %d questions, left are %v", err, asked, w.own)
		}
	})
}

// besideSpeaker offers what is withdrawn while offers, and has a second peer, without a session.
type besideSpeaker struct {
	worldSpeaker
	offers *bool
}

func (s besideSpeaker) Advertised(ctx context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	got, err := s.worldSpeaker.Advertised(ctx, prefixes)
	for _, p := range prefixes {
		if *s.offers {
			got.To[p] = []netip.Addr{theRouter}
		}
	}
	return got, err
}

func (s besideSpeaker) Peers(ctx context.Context) ([]speaker.Peer, error) {
	peers, err := s.worldSpeaker.Peers(ctx)
	return append(peers, speaker.Peer{Address: theRouter.Next(), ASN: 65100}), err
}

// What was said of a drain is not held against the next, and that a router is not told is
// noted once for each, however many passes ask before it begins.
func TestDrainsKeepToTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, offers := testConfig(1), true
		w := newWorld(cfg.DrainDelay, t.Errorf)
		a := New(Options{Config: cfg, Speaker: besideSpeaker{worldSpeaker{w}, &offers}, Holder: worldHolder{w}})
		a.health = func(health.Check) health.State { return health.State{Status: health.Up} }
		a.goneAsk.beside = func(f func()) { go f() }
		pass := func(want string) {
			t.Helper()
			got := ""
			if err := a.pass(t.Context(), false).err; err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("error is %q, want %q", got, want)
			}
			synctest.Wait()
			time.Sleep(100 * time.Millisecond)
		}
		drained := DrainOrders{Node: &DrainOrder{}}
		pass("")
		a.SetDrainOrders(drained)
		pass("")
		pass("") // asks
		pass("the speaker offers peers still what is withdrawn: 203.0.113.1/32")
		a.SetDrainOrders(DrainOrders{})
		for range 3 {
			pass("")
		}
		offers = false
		a.SetDrainOrders(drained)
		for range 3 {
			pass("")
		}
		events, _ := all(t, a.Events(), "", netip.Addr{}, 1000)
		noted := 0
		for _, e := range events {
			if e.Kind == EventNotAllTold {
				noted++
			}
		}
		if noted != 2 {
			t.Errorf("noted %d times that a router is not told of one of two drains", noted)
		}
	})
}
