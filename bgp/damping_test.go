package bgp

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/centra/plasmacloud/bgp/health"
)

func TestRequire(t *testing.T) {
	const up, down, unknown = health.Up, health.Down, health.Unknown
	for _, test := range []struct {
		require int
		states  []health.Status
		want    Want
		why     string
	}{
		{1, []health.Status{down, up, unknown}, Announce, "1 of 3 checks up, 1 needed"},
		{1, []health.Status{down, unknown}, Leave, "0 of 2 checks up, 1 needed; check 127.0.0.1:2 is unknown: set"},
		{1, []health.Status{down, down}, Withdraw, "0 of 2 checks up, 1 needed; check 127.0.0.1:1 is down: set"},
		{2, []health.Status{up, up, down}, Announce, "2 of 3 checks up, 2 needed"},
		{2, []health.Status{up, unknown, down}, Leave, "1 of 3 checks up, 2 needed; check 127.0.0.1:2 is unknown: set"},
		{2, []health.Status{unknown, down, down}, Withdraw, "0 of 3 checks up, 2 needed; check 127.0.0.1:2 is down: set"},
		{3, []health.Status{up, up, up}, Announce, "all checks are up"},
		{1, []health.Status{down}, Withdraw, "check 127.0.0.1:1 is down: set"},
	} {
		v := VIP{Require: test.require}
		states := map[health.Check]health.Status{}
		for i, s := range test.states {
			v.Checks = append(v.Checks, checkOf(i))
			states[checkOf(i)] = s
		}
		want, _, why := healthOf(&v, func(c health.Check) health.State { return health.State{Status: states[c], Reason: "set"} })
		if want != test.want || why != test.why {
			t.Errorf("%d of %v: %v, %q", test.require, test.states, want, why)
		}
	}
}

// flapper is an announcer of one VIP, in a bubble of time.
type flapper struct {
	*testing.T
	world     *world
	announcer *Announcer
	status    health.Status
	last      result
}

func newFlapper(t *testing.T, change func(*VIP)) *flapper {
	cfg := testConfig(1)
	change(&cfg.VIPs[0])
	f := &flapper{T: t, world: newWorld(cfg.DrainDelay, t.Errorf)}
	f.announcer = New(Options{Config: cfg, Speaker: worldSpeaker{f.world}, Holder: worldHolder{f.world},
		Probe: func(context.Context, health.Check) error { return nil }})
	f.announcer.health = func(health.Check) health.State { return health.State{Status: f.status, Reason: "set"} }
	return f
}

// after passes as soon as there is something to do, until d is over.
func (f *flapper) after(d time.Duration) VIPStatus {
	for end := time.Now().Add(d); ; {
		f.last = f.announcer.pass(context.Background(), false)
		if f.last.err != nil {
			f.Fatal(f.last.err)
		}
		if f.last.next.IsZero() || f.last.next.After(end) {
			time.Sleep(time.Until(end))
			f.last = f.announcer.pass(context.Background(), false)
			return f.announcer.Status().VIPs[0]
		}
		time.Sleep(time.Until(f.last.next))
	}
}

func (f *flapper) set(s health.Status) VIPStatus {
	f.status = s
	return f.after(time.Second)
}

func TestDamping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlapper(t, func(v *VIP) { v.Damping = DefaultDamping })
		for fall := range 3 {
			if v := f.set(health.Up); !v.Announced || v.Damping.Suppressed {
				t.Fatalf("before fall %d: %+v", fall, v)
			}
			if v := f.set(health.Down); v.Announced || v.Damping.Penalty == 0 {
				t.Fatalf("after fall %d: %+v", fall, v)
			}
		}
		v := f.set(health.Up)
		if v.Announced || v.Want != Withdraw || v.Cause != CauseDamped || !v.Damping.Suppressed || v.Damping.Penalty < 2500 || v.Damping.Penalty > 3000 ||
			!strings.HasPrefix(v.Why, "went down too often; penalty 28") {
			t.Fatalf("suppressed: %+v", v)
		}
		reuse := v.Damping.ReuseAt
		if left := time.Until(reuse); left < 100*time.Second || left > 2*time.Minute {
			t.Fatalf("reused in %s", left)
		}
		if v = f.after(time.Until(reuse) - time.Second); v.Announced || !v.Damping.Suppressed {
			t.Fatalf("before its time: %+v", v)
		}
		if v = f.after(2 * time.Second); !v.Announced || v.Damping.Suppressed || v.Damping.Penalty > 750 {
			t.Fatalf("after its time: %+v", v)
		}
		if v = f.after(time.Hour); v.Damping != (DampingState{}) {
			t.Fatalf("an hour later: %+v", v.Damping)
		}
	})
}

// A fall that is withdrawn in a hurry just after a pass has asked the checks costs once.
func TestDampingCountsAFallOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlapper(t, func(v *VIP) { v.Damping = DefaultDamping })
		f.set(health.Up)
		a := f.announcer
		asked := a.health
		a.health = func(c health.Check) health.State {
			up := asked(c)
			a.health, f.status = asked, health.Down
			a.hasFallen(c)
			a.hurry(t.Context())
			return up
		}
		a.rested = nil
		if v := f.after(time.Second); v.Announced || v.Damping.Penalty < 900 || v.Damping.Penalty > 1000 {
			t.Errorf("%+v", v)
		}
		if !a.haste.known || f.status != health.Down {
			t.Error("no check fell")
		}
	})
}

// An operator's drain is no fault of the VIP, and what is suppressed stays so in a plan.
func TestDampingCountsChecksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlapper(t, func(v *VIP) { v.Damping = Damping{Penalty: 1000, Suppress: 1000, Reuse: 500, HalfLife: time.Minute} })
		f.set(health.Up)
		for range 3 {
			f.announcer.SetDrainOrders(DrainOrders{Node: &DrainOrder{}})
			f.after(time.Second)
			f.announcer.SetDrainOrders(DrainOrders{})
			if v := f.after(time.Second); v.Damping != (DampingState{}) || !v.Announced {
				t.Fatalf("%+v", v)
			}
		}
		f.set(health.Down)
		f.set(health.Up)
		before := *f.announcer.past[f.announcer.cfg.VIPs[0].Address]
		f.status = health.Down
		steps, err := f.announcer.plan(t.Context(), nil)
		if after := *f.announcer.past[f.announcer.cfg.VIPs[0].Address]; err != nil || after != before {
			t.Errorf("a plan took %+v to %+v: %v, %v", before, after, steps, err)
		}
	})
}

func TestStartDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlapper(t, func(v *VIP) { v.StartDelay = time.Minute })
		f.set(health.Unknown)
		v := f.set(health.Up)
		if v.Announced || v.Want != Leave || v.Cause != CauseStarting || !strings.HasPrefix(v.Why, "its check is up; start_delay ends at 2000-01-01T00:01:01Z") {
			t.Fatalf("up for a second: %+v", v)
		}
		f.after(50 * time.Second)
		f.set(health.Down) // and so it starts anew
		f.set(health.Up)
		if v = f.after(57 * time.Second); v.Announced {
			t.Fatalf("up for 58 seconds: %+v", v)
		}
		if v = f.after(3 * time.Second); !v.Announced {
			t.Fatalf("up for a minute: %+v", v)
		}
		f.set(health.Down)
		if v = f.set(health.Up); !v.Announced {
			t.Fatalf("delayed when the start is long over: %+v", v)
		}
		// After a crash, what is announced stays.
		past := f.announcer.past
		f.announcer.past = histories{}
		if v = f.after(time.Second); !v.Announced || v.Cause != CauseStarting {
			t.Fatalf("after a crash: %+v", v)
		}
		if len(past) != 1 {
			t.Fatal(past)
		}
	})
}

// A penalty never grows by itself nor beyond its ceiling; a VIP is suppressed from
// suppress on, and until reuse_at and no longer.
func TestDampingProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reuse := rapid.IntRange(1, 5000).Draw(t, "reuse")
		d := Damping{
			Penalty: rapid.IntRange(1, 10_000).Draw(t, "penalty"), Reuse: reuse,
			Suppress: rapid.IntRange(reuse+1, reuse+10_000).Draw(t, "suppress"),
			HalfLife: time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(24*time.Hour)).Draw(t, "half life")),
		}
		now := time.Unix(1_000_000_000, 0)
		past := histories{}
		v := VIP{Address: netip.MustParseAddr("203.0.113.1"), Damping: d}
		was := Leave
		var before DampingState
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Float64Range(0, 3).Draw(t, "half lives") * float64(d.HalfLife)))
			want := rapid.SampledFrom([]Want{Announce, Withdraw, Leave}).Draw(t, "want")
			w := wish{want: want}
			past.judge(&v, &w, now)
			fell := was == Announce && want == Withdraw
			if want != Leave {
				was = want
			}
			s := w.damping
			switch {
			case s.Penalty < 0 || s.Penalty > d.ceiling() || math.IsNaN(s.Penalty):
				t.Fatalf("penalty %f", s.Penalty)
			case !fell && s.Penalty > before.Penalty:
				t.Fatalf("grew from %f to %f by itself", before.Penalty, s.Penalty)
			case s.Suppressed && s.Penalty < float64(d.Reuse), !s.Suppressed && s.Penalty >= float64(d.Suppress):
				t.Fatalf("%+v of %+v", s, d)
			case !before.Suppressed && s.Suppressed && !fell:
				t.Fatal("suppressed without a fall")
			case before.Suppressed && !fell && s.Suppressed != now.Before(before.ReuseAt) && before.ReuseAt.Sub(now).Abs() > 2*time.Millisecond:
				t.Fatalf("to be reused at %s, and at %s it is %+v", before.ReuseAt, now, s)
			case s.Suppressed && want == Announce && w.want != Withdraw, !s.Suppressed && w.want != want:
				t.Fatalf("%s became %s: %+v", want, w.want, s)
			case s.Suppressed == s.ReuseAt.IsZero():
				t.Fatalf("%+v", s)
			}
			before = s
			again := wish{want: want}
			if past.judge(&v, &again, now); again.damping != s {
				t.Fatalf("judged again, %+v became %+v", s, again.damping)
			}
		}
	})
}
