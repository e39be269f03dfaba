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

	"pgregory.net/rapid"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

const modelVIPs = 4

// machine drives an announcer, pass by pass, through a world in which anything
// may happen between two passes. The world complains about a wrong step; settle
// asks whether all is as it should be once nothing happens any more.
type machine struct {
	world     *world
	announcer *Announcer
	cfg       *Config
	health    map[health.Check]health.Status
	// What strangers put there, which must stay.
	strangers map[netip.Addr]bool
}

// bubble hides t.Deadline, which may not be asked inside synctest, from rapid.
type bubble struct{ testing.TB }

func newMachine(t *rapid.T) *machine {
	m := &machine{cfg: testConfig(modelVIPs), health: map[health.Check]health.Status{}, strangers: map[netip.Addr]bool{}}
	m.world = newWorld(m.cfg.DrainDelay, func(format string, args ...any) { t.Fatalf(format, args...) })
	m.cfg.GracefulShutdown = drawGraceful(t)
	for i := range modelVIPs {
		m.health[checkOf(i)] = rapid.SampledFrom([]health.Status{health.Up, health.Unknown}).Draw(t, "health")
	}
	m.start()
	return m
}

// start is also what follows a crash: the new announcer knows nothing.
func (m *machine) start() {
	clear(m.world.delays)
	m.announcer = New(Options{Config: m.cfg, Speaker: worldSpeaker{m.world}, Holder: worldHolder{m.world},
		Probe: func(context.Context, health.Check) error { return nil }})
	m.announcer.health = func(c health.Check) health.State { return health.State{Status: m.health[c], Reason: "set by the test"} }
}

func (m *machine) pass() result {
	m.configured(false)
	return m.announcer.pass(context.Background(), false)
}

// wishes are those of a pass now.
func (m *machine) wishes(stopping bool) *wishList {
	return desired(m.cfg, m.announcer.DrainOrders(), m.announcer.health, m.announcer.past.clone(), time.Now(), m.world.internal, stopping)
}

// configured tells the world what the announcer is about to read.
func (m *machine) configured(stopping bool) {
	clear(m.world.holds)
	for _, v := range m.cfg.VIPs {
		m.world.delays[v.Address], m.world.holds[v.Address] = v.DrainDelay, v.Hold
	}
	m.world.graceful = gracefulDelay
	m.world.leaves = func(a netip.Addr) bool {
		wishes := m.wishes(stopping)
		wish := wishes.of(a)
		if wish.vip != nil && !m.cfg.GracefulShutdown.OnHealth {
			if want, _, _ := healthOf(wish.vip, m.announcer.health); want == Withdraw {
				return false
			}
		}
		return !m.world.listFails && m.cfg.GracefulShutdown.applies(wish.cause) && wish.want == Withdraw
	}
}

const gracefulDelay = 3 * time.Second

func drawGraceful(t *rapid.T) (g GracefulShutdown) {
	if rapid.Bool().Draw(t, "graceful") {
		g = GracefulShutdown{Delay: gracefulDelay, OnHealth: rapid.Bool().Draw(t, "on health"), ByMED: rapid.Bool().Draw(t, "by MED")}
	}
	return g
}

func drawVIP(t *rapid.T) netip.Addr {
	return testConfig(modelVIPs).VIPs[rapid.IntRange(0, modelVIPs-1).Draw(t, "vip")].Address
}

func (m *machine) actions() map[string]func(*rapid.T) {
	pass := func(t *rapid.T) {
		m.pass()
		m.afterPass(t)
	}
	return map[string]func(*rapid.T){
		"pass": pass, "one more pass": pass, "and one more": pass, // the most frequent event
		"time": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 7000).Draw(t, "ms")) * time.Millisecond)
		},
		"health": func(t *rapid.T) {
			c := checkOf(rapid.IntRange(0, modelVIPs-1).Draw(t, "check"))
			m.health[c] = rapid.SampledFrom([]health.Status{health.Unknown, health.Up, health.Down}).Draw(t, "status")
		},
		"fall": func(t *rapid.T) {
			c := checkOf(rapid.IntRange(0, modelVIPs-1).Draw(t, "check"))
			m.health[c] = health.Down
			m.announcer.hasFallen(c)
			m.configured(false)
			m.world.hurrying = true
			m.announcer.hurry(t.Context())
			m.world.hurrying = false
		},
		"reload": func(t *rapid.T) {
			cfg := testConfig(modelVIPs)
			cfg.GracefulShutdown = drawGraceful(t)
			keep := rapid.SliceOfN(rapid.Bool(), modelVIPs, modelVIPs).Draw(t, "keep")
			i := -1
			cfg.VIPs = slices.DeleteFunc(cfg.VIPs, func(VIP) bool { i++; return !keep[i] })
			for i := range cfg.VIPs {
				med := rapid.Uint32Range(0, 2).Draw(t, "med")
				cfg.VIPs[i].MED = &med
				cfg.VIPs[i].Prepend = rapid.IntRange(0, 2).Draw(t, "prepend")
				cfg.VIPs[i].DrainDelay = time.Duration(rapid.IntRange(1, 5).Draw(t, "drain delay")) * time.Second
				cfg.VIPs[i].Hold = rapid.SampledFrom([]vip.How{vip.Address, vip.Route, vip.None}).Draw(t, "hold")
				cfg.VIPs[i].StartDelay = rapid.SampledFrom([]time.Duration{0, 0, 2 * time.Second}).Draw(t, "start delay")
				if rapid.Bool().Draw(t, "damping") {
					cfg.VIPs[i].Damping = Damping{Penalty: 1000, Suppress: 1500, Reuse: 750, HalfLife: time.Second}
				}
				if rapid.Bool().Draw(t, "no checks") {
					cfg.VIPs[i].Checks = nil
				}
			}
			m.cfg = cfg
			m.announcer.cfg, m.announcer.users = cfg, checks(cfg) // as Reload does, without its runners
		},
		"drain order": func(t *rapid.T) {
			orders := m.announcer.DrainOrders()
			if rapid.Bool().Draw(t, "of the node") {
				orders.Node = nil
				if rapid.Bool().Draw(t, "drain") {
					orders.Node = &DrainOrder{}
				}
			} else if a := drawVIP(t); rapid.Bool().Draw(t, "drain") {
				orders.VIPs[a] = DrainOrder{}
			} else {
				delete(orders.VIPs, a)
			}
			m.announcer.SetDrainOrders(orders)
		},
		"announcer crashes": func(*rapid.T) { m.start() },
		"restart with another interface": func(*rapid.T) {
			m.start()
			for a := range m.world.own {
				m.world.own[a] = vip.Stray
			}
		},
		"speaker restarts": func(*rapid.T) { m.world.restartSpeaker() },
		"speaker changes": func(t *rapid.T) {
			states := []error{nil, nil, speaker.ErrGone, speaker.ErrNoAnswer, speaker.ErrNotConfigured, speaker.ErrWrongASN, speaker.ErrWrongAPI}
			m.world.away = states[rapid.IntRange(0, len(states)-1).Draw(t, "state")]
			if m.world.dead() {
				m.world.restartSpeaker()
			}
		},
		"router's AS": func(t *rapid.T) { m.world.internal = rapid.Bool().Draw(t, "ours") },
		"session":     func(t *rapid.T) { m.world.setSession(rapid.Bool().Draw(t, "up")) },
		"interface": func(t *rapid.T) {
			if m.world.noInterface = rapid.Bool().Draw(t, "gone"); m.world.noInterface {
				clear(m.world.own)
				clear(m.world.others)
				clear(m.strangers)
			}
		},
		"stranger announces": func(t *rapid.T) { m.world.foreign[speaker.HostPrefix(drawVIP(t))]++ },
		"stranger binds": func(t *rapid.T) {
			if a := drawVIP(t); m.world.own[a]&vip.Address == 0 && !m.world.noInterface {
				m.world.others[a], m.strangers[a] = true, true
			}
		},
		"stranger unbinds ours": func(t *rapid.T) {
			a := drawVIP(t)
			if m.world.own[a] &^= rapid.SampledFrom([]vip.How{vip.Address, vip.Route, vip.Stray, vip.Anyhow}).Draw(t, "what"); m.world.own[a] == vip.None {
				delete(m.world.own, a)
			}
		},
		"bind fails": func(t *rapid.T) { m.world.bindFails[drawVIP(t)] = rapid.Bool().Draw(t, "fails") },
		"list fails": func(t *rapid.T) { m.world.listFails = rapid.Bool().Draw(t, "fails") },
		"":           m.check,
	}
}

// afterPass holds after a pass that could read and write.
func (m *machine) afterPass(t *rapid.T) {
	w := m.world
	if w.listFails || w.away != nil && !errors.Is(w.away, speaker.ErrWrongASN) {
		return
	}
	wishes := m.wishes(false)
	for p, path := range w.table {
		if a := p.Addr(); !w.held(a) {
			t.Fatalf("%s is announced, and nobody holds it", a)
		}
		lowered := isLowered(path)
		if wish := wishes.of(p.Addr()); wish.want == Withdraw && !(lowered && w.leaves(p.Addr())) {
			t.Fatalf("%s is announced, and unwanted", p)
		} else if wish.want == Announce && lowered && w.away == nil {
			t.Fatalf("%s is wanted, and still lowered", p)
		}
	}
}

// check holds after every action.
func (m *machine) check(t *rapid.T) {
	for a := range m.strangers {
		if !m.world.others[a] {
			t.Fatalf("the stranger's %s is gone", a)
		}
	}
}

// settle lets everything work, passes until nothing is left to do, and compares.
func (m *machine) settle(t *rapid.T) {
	w := m.world
	w.away, w.listFails, w.noInterface = nil, false, false
	w.setSession(true)
	clear(w.bindFails)
	foreign := maps.Clone(w.foreign)
	before := live{table: speaker.Table{Own: maps.Clone(w.table)}}
	beforeOwn := maps.Clone(w.own)
	var r result
	for i := range 10 {
		// The first may still report what came before.
		if r = m.pass(); r.err != nil && i > 0 {
			t.Fatalf("pass fails: %v", r.err)
		}
		time.Sleep(m.cfg.DrainDelay)
	}
	steps := w.changes()
	if r = m.pass(); r.err != nil || !r.next.IsZero() || w.changes() != steps {
		t.Fatalf("not quiet: %+v, %d steps more", r, w.changes()-steps)
	}
	wishes := m.wishes(false)
	for _, wish := range wishes.all {
		addr, prefix := wish.addr, speaker.HostPrefix(wish.addr)
		path, announced := w.table[prefix]
		held := w.held(addr)
		right := w.own[addr] == wish.hold || wish.hold == vip.Address && w.own[addr] == vip.None && w.others[addr]
		switch wish.want {
		case Announce:
			if !announced || !held || !right || !path.Equal(wishes.path(&wish)) {
				t.Fatalf("%s should be announced, held as %s: announced %v, held as %s, %+v", addr, wish.hold, announced, w.own[addr], path)
			}
		case Withdraw:
			if announced || w.own[addr] != vip.None {
				t.Fatalf("%s should be gone: announced %v, held %v", addr, announced, w.own[addr])
			}
		case Leave:
			if old, was := before.table.Own[prefix]; was != announced || was && !old.Equal(path) {
				t.Fatalf("%s should be left: announced %v, was %v", addr, announced, was)
			}
			if beforeOwn[addr] != vip.None && !held {
				t.Fatalf("%s should be left, and was released", addr)
			}
			if announced && !held {
				t.Fatalf("%s is announced and not held", addr)
			}
		}
	}
	for p := range w.table {
		if !wishes.has(p.Addr()) {
			t.Fatalf("%s is not configured, and announced", p)
		}
	}
	for a := range w.own {
		if !wishes.has(a) {
			t.Fatalf("%s is not configured, and held", a)
		}
	}
	if !maps.Equal(foreign, w.foreign) {
		t.Fatalf("foreign paths went from %v to %v", foreign, w.foreign)
	}
	m.check(t)
}

// Whatever happens in whatever order, no step is wrong, and after quiet the live
// state is the desired one.
func TestReconcileProperty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubble{t}, func(t *rapid.T) {
			m := newMachine(t)
			t.Repeat(m.actions())
			m.settle(t)
		})
	})
}

// However things stand when the announcer is told to stop, it ends clean, unless the
// speaker or its router cannot be told: then what may be announced stays held.
func TestStopProperty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubble{t}, func(t *rapid.T) {
			m := newMachine(t)
			t.Repeat(m.actions())
			w := m.world
			w.listFails = false
			foreign := maps.Clone(w.foreign)
			held, nothing := len(w.own), len(w.own) == 0
			m.configured(true)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			began := time.Now()
			err := m.announcer.Run(ctx)
			took := time.Since(began)
			hangs := errors.Is(w.away, speaker.ErrNoAnswer) || errors.Is(w.away, speaker.ErrWrongAPI)
			// Where the router cannot be told, what it may send to stays held: the world
			// complains of a release.
			untold := w.dead() || !w.session
			switch {
			case hangs && (err == nil || len(w.own) != held):
				t.Fatalf("the speaker hangs: %v, %d of %d addresses left", err, len(w.own), held)
			case hangs:
			case err != nil && (!untold || nothing), err == nil && len(w.table)+len(w.own) != 0:
				t.Fatalf("left %v, %v: %v", w.table, w.own, err)
			}
			if bound := 2*(m.cfg.GracefulShutdown.Delay+m.cfg.DrainDelay) + patience*m.cfg.Speaker.Timeout; took > bound {
				t.Fatalf("stopping took %s, more than %s", took, bound)
			}
			if !maps.Equal(foreign, w.foreign) {
				t.Fatalf("foreign paths went from %v to %v", foreign, w.foreign)
			}
			m.check(t)
		})
	})
}

// A pass over ten thousand VIPs with nothing to do asks three questions and acts on none.
func BenchmarkPassWithoutChange(b *testing.B) {
	w := newWorld(time.Second, func(format string, args ...any) { b.Fatalf(format, args...) })
	cfg := testConfig(10_000)
	a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}})
	a.health = func(health.Check) health.State { return health.State{Status: health.Up} }
	a.pass(b.Context(), false)
	before := w.changes()
	for b.Loop() {
		a.pass(b.Context(), false)
	}
	if w.changes() != before {
		b.Fatal("a pass without change took a step")
	}
}

// A speaker that is away for a moment does not start the delay of a graceful shutdown anew.
func TestGracefulShutdownGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Second, t.Fatalf)
		cfg := testConfig(1)
		cfg.GracefulShutdown.Delay = gracefulDelay
		a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}})
		a.health = func(health.Check) health.State { return health.State{Status: health.Up} }
		a.pass(t.Context(), false)
		a.SetDrainOrders(DrainOrders{Node: &DrainOrder{}})
		if r := a.pass(t.Context(), false); time.Until(r.next) != gracefulDelay || len(w.lowered) != 1 {
			t.Fatalf("next pass in %s, lowered are %v", time.Until(r.next), w.lowered)
		}
		time.Sleep(gracefulDelay)
		w.away = speaker.ErrNoAnswer
		a.pass(t.Context(), false)
		w.away = nil
		a.pass(t.Context(), false)
		if len(w.table) != 0 {
			t.Errorf("still announced: %v", w.table)
		}
	})
}

// What is drained and whose check then goes down is not left announced for the rest of the
// delay: a backend is stopped soon after its VIP is drained. With OnHealth it is.
func TestGracefulShutdownOfWhatIsDown(t *testing.T) {
	for _, onHealth := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(time.Second, t.Fatalf)
			cfg := testConfig(2)
			cfg.GracefulShutdown = GracefulShutdown{Delay: gracefulDelay, OnHealth: onHealth}
			a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}})
			down := false
			a.health = func(c health.Check) health.State {
				if down && c == checkOf(0) {
					return health.State{Status: health.Down}
				}
				return health.State{Status: health.Up}
			}
			a.pass(t.Context(), false)
			a.SetDrainOrders(DrainOrders{Node: &DrainOrder{}})
			a.pass(t.Context(), false)
			time.Sleep(gracefulDelay / 3)
			down = true
			a.pass(t.Context(), false)
			_, first := w.table[speaker.HostPrefix(cfg.VIPs[0].Address)]
			_, second := w.table[speaker.HostPrefix(cfg.VIPs[1].Address)]
			if first != onHealth || !second {
				t.Errorf("on health %v: announced are %v", onHealth, w.table)
			}
		})
	}
}
