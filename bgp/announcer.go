package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// Options is what an Announcer works with.
type Options struct {
	Config  *Config
	Speaker speaker.Speaker
	Holder  vip.Holder
	Probe   func(context.Context, health.Check) error // nil: health.Probe
	Logger  *slog.Logger                              // nil: silent
}

// Announcer keeps the VIPs of one host announced. See the package's comment.
type Announcer struct {
	speaker speaker.Speaker
	holder  vip.Holder
	monitor *health.Monitor
	health  func(health.Check) health.State // monitor's
	events  *Events
	offers  *offers
	log     *slog.Logger
	wake    chan struct{}
	fell    chan struct{} // there is something in down
	turned  chan struct{} // the speaker came or went
	locks   locks         // of Open; none of New

	asks chan func() // for Run, between two passes

	unrenewed atomic.Uint64
	lost      atomic.Pointer[error] // why the speaker was lost since the last pass

	mu      sync.Mutex // guards cfg, refused, users, down, orders, status and steps
	cfg     *Config
	refused string                  // why a newer one was refused
	users   map[health.Check][]*VIP // by check of cfg
	down    map[health.Check]bool   // that went down since hurry looked
	orders  DrainOrders
	status  Status
	steps   []Step // of the pass under way

	// Used by Run alone; haste has what it shares with hurry.
	onPass   []func(Status)
	onReady  func(*Config) // nil: called already, or nobody asks
	onStop   func(context.Context) bool
	past     histories
	rested   *inputs       // of the last pass, if it did nothing and waits for nothing
	atLeast  time.Duration // see PassEvery
	drains   drains
	goneAsk  goneAsk
	delays   delays
	reported reports
	sent     sentPaths
	troubles troubles                  // of the pass under way
	lowered  map[netip.Prefix]lowering // what has the lowest preference, before its withdraw
	haste    haste
	released map[netip.Addr]bool // in the last pass, after the drain
	until    time.Time           // see noteUnheld
}

// New makes an Announcer; Run starts it.
func New(o Options) *Announcer {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Announcer{
		speaker: o.Speaker, holder: newBoundedHolder(o.Holder), cfg: o.Config, users: checks(o.Config),
		log:    o.Logger.With("part", "announcer"),
		wake:   make(chan struct{}, 1),
		fell:   make(chan struct{}, 1),
		turned: make(chan struct{}, 1),
		asks:   make(chan func()),
		events: newEvents(), offers: newOffers(),
		drains: drains{}, delays: newDelays(), reported: newReports(), sent: sentPaths{}, past: histories{},
		down:  map[health.Check]bool{},
		haste: haste{hurried: map[netip.Prefix]bool{}, fell: map[netip.Addr]bool{}},
	}
	a.monitor = health.NewMonitor(health.Config{OnChange: a.noteHealth, Probe: o.Probe, Logger: o.Logger.With("part", "health")})
	a.health = a.monitor.State
	return a
}

// Open makes an Announcer with the speaker and the host that cfg names. The
// speaker may come later; what the host lacks is an error, and so is another
// announcer with the same speaker or interface.
func Open(cfg *Config, logger *slog.Logger) (*Announcer, error) { return open(cfg, logger, false) }

func open(cfg *Config, logger *slog.Logger, mayBeGone bool) (*Announcer, error) {
	locks, err := lock(cfg)
	if err != nil {
		return nil, err
	}
	holder, err := vip.Open(vip.Config{Interface: cfg.Hold.Interface, NetNS: cfg.Hold.NetNS, Lifetime: cfg.Hold.Lifetime, MayBeGone: mayBeGone})
	if err != nil {
		return nil, errors.Join(err, locks.Close())
	}
	sp, err := speaker.Dial(speaker.Config{Address: cfg.Speaker.Address, ASN: cfg.ASN, Timeout: cfg.Speaker.Timeout, TLS: cfg.Speaker.TLS})
	if err != nil {
		return nil, errors.Join(err, holder.Close(), locks.Close())
	}
	a := New(Options{Config: cfg, Speaker: sp, Holder: holder, Logger: logger})
	a.locks = locks
	return a, nil
}

// Close frees the connections. Paths and addresses stay as they are, so a new
// announcer takes them over; to take them down, end Run's context and wait for Run.
func (a *Announcer) Close() error {
	a.monitor.Close()
	return errors.Join(a.speaker.Close(), a.holder.Close(), a.locks.Close())
}

// OnPass makes Run call f after every pass, with what it found and did, after what was
// given before. Call it before Run.
func (a *Announcer) OnPass(f func(Status)) { a.onPass = append(a.onPass, f) }

// OnReady makes Run call f once, when the speaker is ready for the first time, before it is
// given anything. Call it before Run.
func (a *Announcer) OnReady(f func(*Config)) { a.onReady = f }

// OnStop makes Run ask f once it is told to stop. Where f says so, Run ends at once and
// leaves all as it is, as a crash does, for an announcer that is about to start. Call it
// before Run.
func (a *Announcer) OnStop(f func(context.Context) bool) { a.onStop = f }

// Inherits is nil if an announcer with next could take over what this one leaves.
func (a *Announcer) Inherits(next *Config) error {
	switch cfg := a.config(); {
	case cfg.Speaker.Address != next.Speaker.Address:
		return fmt.Errorf("speaker.address changed from %s to %s, and paths are with the one before", cfg.Speaker.Address, next.Speaker.Address)
	case cfg.Hold.NetNS != next.Hold.NetNS:
		return fmt.Errorf("hold.netns changed from %q to %q, and VIPs are held in the one before", cfg.Hold.NetNS, next.Hold.NetNS)
	}
	return nil
}

// PassEvery makes Run pass at least every d, whatever the configuration says; for a
// watchdog. Call it before Run.
func (a *Announcer) PassEvery(d time.Duration) { a.atLeast = d }

// OnProbe makes the checks call f after each answer, with how long it took; err is nil
// if it was good. Call it before Run. f may be called concurrently.
func (a *Announcer) OnProbe(f func(c health.Check, took time.Duration, err error)) {
	a.monitor.OnProbe(f)
}

// Checks is how many checks have each status.
func (a *Announcer) Checks() map[health.Status]int { return a.monitor.Count() }

// RenewalsFailed is how often addresses could not be renewed, of those with a lifetime.
func (a *Announcer) RenewalsFailed() uint64 { return a.unrenewed.Load() }

// SpeakerGeneration is the generation of the daemon's API that answered last, such as
// 4; 0 before the first answer.
func (a *Announcer) SpeakerGeneration() int { return a.speaker.Generation() }

// Reload replaces the configuration; what did not change is not touched. A
// configuration that would need another speaker or another interface is refused
// as a whole, and the old one stays.
func (a *Announcer) Reload(cfg *Config) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := reloadable(a.cfg, cfg); err != nil {
		return err
	}
	a.cfg, a.refused, a.users = cfg, "", checks(cfg)
	a.monitor.Update(slices.Collect(maps.Keys(a.users)))
	a.trigger()
	return nil
}

// Refuse notes that a reload came to nothing; Status says so until one does.
func (a *Announcer) Refuse(err error) {
	a.mu.Lock()
	a.refused = err.Error()
	a.mu.Unlock()
	a.Note(slog.LevelError, "reload refused; the old configuration stays", Event{Kind: EventReloadRefused, Reason: err.Error()}, "error", err)
}

// reloadable is nil if cfg may take the place of old without a restart.
func reloadable(old, cfg *Config) error {
	was, is := old.Speaker, cfg.Speaker
	for _, field := range []struct {
		name     string
		from, to any
	}{
		{"asn", old.ASN, cfg.ASN},
		{"speaker.address", was.Address, is.Address},
		{"speaker.timeout", was.Timeout, is.Timeout},
		{"speaker.tls", was.TLS.Use, is.TLS.Use},
		{"speaker.tls.ca", was.TLS.CA, is.TLS.CA},
		{"speaker.tls.cert", was.TLS.Cert, is.TLS.Cert},
		{"speaker.tls.key", was.TLS.Key, is.TLS.Key},
		{"speaker.tls.server_name", was.TLS.ServerName, is.TLS.ServerName},
		{"hold.interface", old.Hold.Interface, cfg.Hold.Interface},
		{"hold.netns", old.Hold.NetNS, cfg.Hold.NetNS},
		{"hold.lifetime", old.Hold.Lifetime, cfg.Hold.Lifetime},
		{"hold.sysctls", old.Hold.Sysctls, cfg.Hold.Sysctls},
	} {
		if field.from != field.to {
			return fmt.Errorf("%s changed from %s to %s, which a reload cannot do; restart the announcer", field.name, jsonOf(field.from), jsonOf(field.to))
		}
	}
	return nil
}

// jsonOf is v much as announcer.json has it.
func jsonOf(v any) string {
	if d, is := v.(time.Duration); is {
		v = d.String()
	}
	if s, is := v.(string); is {
		return quote(s)
	}
	return fmt.Sprint(v)
}

// checks are those of cfg, each with the VIPs that depend on it.
func checks(cfg *Config) map[health.Check][]*VIP {
	users := map[health.Check][]*VIP{}
	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		for _, c := range v.Checks {
			users[c] = append(users[c], v)
		}
	}
	return users
}

// usersOf are the VIPs that depend on c.
func (a *Announcer) usersOf(c health.Check) []*VIP {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.users[c]
}

func (a *Announcer) config() *Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// trigger starts a pass soon; many triggers at once start one.
func (a *Announcer) trigger() { poke(a.wake) }

// poke wakes who waits for c, which has room for one; many pokes at once wake once.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

const (
	minGap     = 20 * time.Millisecond  // between two passes, whatever happens
	firstRetry = 250 * time.Millisecond // after a pass that failed; doubles
	lastRetry  = 5 * time.Second
	// patience times the speaker's timeout is how long, beyond the drain, stopping may take.
	patience = 5
)

// Run keeps the VIPs announced until ctx ends. Then it withdraws them all, waits
// for the drain, releases the addresses, and returns nil. Where it cannot know that
// routers were told of a withdraw it leaves the address held and returns an error:
// the speaker does not answer, is not running, is not configured, or has routers
// and a session with none. See OnStop for an end that changes nothing.
func (a *Announcer) Run(ctx context.Context) error {
	// A request under way is not cut off by the signal to stop; each has its own deadline.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer cancel()
	defer a.monitor.Close()
	watchers.Go(func() { a.watch(work, a.watchSpeaker) })
	watchers.Go(func() { a.watch(work, a.holder.Watch) })
	watchers.Go(func() { a.renew(work) })
	watchers.Go(func() { a.hurryOn(work) })
	watchers.Go(func() { a.lookOn(work) })
	a.goneAsk.beside = watchers.Go

	if ctx.Err() == nil { // else nothing is asked that nobody needs to know
		a.mu.Lock()
		a.monitor.Update(slices.Collect(maps.Keys(a.users)))
		a.mu.Unlock()
	}
	a.Note(slog.LevelInfo, "started", Event{Kind: EventStarted, Reason: fmt.Sprintf("%d VIPs are configured", len(a.config().VIPs))}, "vips", len(a.config().VIPs))
	var deadline time.Time
	stopping := false
	retry := firstRetry
	for {
		if !stopping && ctx.Err() != nil {
			if a.onStop != nil && a.onStop(work) {
				a.Note(slog.LevelInfo, "handed over: all stays as it is, for the next announcer", Event{Kind: EventHandedOver})
				return nil
			}
			stopping = true
			cfg := a.config()
			deadline = time.Now().Add(a.longestDrain(cfg) + patience*cfg.Speaker.Timeout)
			a.Note(slog.LevelInfo, "stopping", Event{Kind: EventStopping, Reason: "gives up at " + stamp(deadline)}, "deadline", deadline)
		}
		start := time.Now()
		result := a.pass(work, stopping)
		if stopping {
			if result.clean {
				a.log.Info("stopped: nothing of ours is announced or held")
				return nil
			}
			// A drain that is under way without trouble may end, and what a pass did
			// late is looked at once more.
			late := start.Sub(deadline)
			idle := len(a.lastStatus().Steps) == 0
			if late > 0 && (result.err != nil || result.next.IsZero()) || late > a.longestDrain(a.config()) && idle {
				return a.gaveUp(result)
			}
		}
		wait := a.interval()
		if result.err != nil {
			wait = min(wait, retry)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		if stopping {
			wait = min(wait, firstRetry)
		}
		if !result.next.IsZero() {
			wait = min(wait, time.Until(result.next))
		}
		gap := max(minGap, time.Since(start)) // half of the time at most
		if stopping {
			gap = minGap // which has a deadline
		}
		a.sleep(ctx, stopping, gap, wait)
	}
}

// interval is how long nothing may happen before a pass starts.
func (a *Announcer) interval() time.Duration {
	interval := a.config().ReconcileInterval
	if a.atLeast > 0 {
		interval = min(interval, a.atLeast)
	}
	return interval
}

// sleep returns after wait, or earlier for a trigger or the end of ctx, but not before gap,
// unless the speaker comes or goes: its routers have no routes until it is filled.
func (a *Announcer) sleep(ctx context.Context, stopping bool, gap, wait time.Duration) {
	done := ctx.Done()
	if stopping {
		done = nil
	}
	timer := time.NewTimer(gap)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.turned:
		return
	case <-done:
		return
	}
	timer.Reset(max(0, wait-gap))
	for {
		select {
		case ask := <-a.asks:
			ask()
			continue
		case <-timer.C:
		case <-a.wake:
		case <-a.turned:
		case <-done:
		}
		return
	}
}

func (a *Announcer) gaveUp(r result) error {
	paths, held := "paths unknown", "addresses unknown"
	if r.now.tableKnown {
		paths = fmt.Sprintf("%d paths", len(r.now.table.Own))
	}
	if r.now.addrsKnown {
		held = fmt.Sprintf("%d addresses", len(r.now.addrs.Own))
	}
	err := fmt.Errorf("stopped with %s and %s left as they are, since routers may still send traffic", paths, held)
	if r.err != nil {
		err = fmt.Errorf("%w: %w", err, r.err)
	}
	return err
}

// watchSpeaker is the speaker's Watch, of which the start and the end are news by themselves.
func (a *Announcer) watchSpeaker(ctx context.Context, changed func()) error {
	var came atomic.Bool
	err := a.speaker.Watch(ctx, func() {
		if !came.Swap(true) {
			poke(a.turned)
		}
		changed()
	})
	if came.Load() && !errors.Is(err, context.DeadlineExceeded) { // of one that is late, the pass's own question says more
		a.lost.Store(&err)
		poke(a.turned)
	}
	return err
}

// watch keeps f running. Its end is news, so it starts a pass, but not again and
// again while nothing changes.
func (a *Announcer) watch(ctx context.Context, f func(context.Context, func()) error) {
	const first, last = 50 * time.Millisecond, 100 * time.Millisecond
	pause, before := first, ""
	for ctx.Err() == nil {
		var worked atomic.Bool
		err := f(ctx, func() { worked.Store(true); a.trigger() })
		if ctx.Err() != nil {
			return
		}
		if worked.Load() {
			pause = first
		}
		if text := fmt.Sprint(err); worked.Load() || text != before {
			before = text
			a.trigger()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(pause*3/2, last)
	}
}
