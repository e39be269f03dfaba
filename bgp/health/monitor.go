package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// MaxConcurrent is how many probes are under way at once, over all checks.
const MaxConcurrent = 64

// Config is what a Monitor needs; only OnChange is required.
type Config struct {
	OnChange func()                             // called after any check's Status changed; must not block
	Probe    func(context.Context, Check) error // nil: Probe of this package
	Logger   *slog.Logger                       // nil: silent
}

// Monitor runs checks and keeps their states. Methods may be called concurrently.
type Monitor struct {
	cfg   Config
	slots chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	runners map[Check]*runner
}

type runner struct {
	cancel context.CancelFunc

	state State
	row   int // answers in a row that contradict state.Status; see observe
	good  bool
}

// NewMonitor has no checks until Update.
func NewMonitor(cfg Config) *Monitor {
	if cfg.Probe == nil {
		cfg.Probe = Probe
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Monitor{cfg: cfg, slots: make(chan struct{}, MaxConcurrent), runners: map[Check]*runner{}}
}

// Update makes checks the ones that run. Those that ran before keep their state.
func (m *Monitor) Update(checks []Check) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	wanted := make(map[Check]bool, len(checks))
	for _, c := range checks {
		wanted[c] = true
		if m.runners[c] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		r := &runner{cancel: cancel, state: State{Status: Unknown, Reason: "not asked yet", Since: time.Now()}}
		m.runners[c] = r
		m.wg.Go(func() { m.run(ctx, c, r) })
	}
	for c, r := range m.runners {
		if !wanted[c] {
			r.cancel()
			delete(m.runners, c)
		}
	}
}

// State is the state of c; of a check that does not run it is Unknown.
func (m *Monitor) State(c Check) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.runners[c]; r != nil {
		return r.state
	}
	return State{Reason: "not asked"}
}

// Close ends every check and waits for probes under way.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	for c, r := range m.runners {
		r.cancel()
		delete(m.runners, c)
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// run asks until ctx ends. The first question waits a random part of the
// interval, at most a second, so that many checks do not all ask at once.
func (m *Monitor) run(ctx context.Context, c Check, r *runner) {
	defer r.cancel()
	timer := time.NewTimer(rand.N(min(c.Interval, time.Second)/4 + 1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := time.Now().Add(jitter(c.Interval))
		err := m.probe(ctx, c)
		if ctx.Err() != nil {
			return // cut off by us, so it says nothing of the target
		}
		m.record(c, r, err)
		timer.Reset(time.Until(next))
	}
}

// jitter is d ±10 %.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

func (m *Monitor) probe(ctx context.Context, c Check) error {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.slots }()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
	defer cancel()
	err := m.cfg.Probe(ctx, c)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("no answer within %s", c.Timeout)
	}
	return err
}

var errTimeout = errors.New("check timed out")

func (m *Monitor) record(c Check, r *runner, err error) {
	m.mu.Lock()
	if m.runners[c] != r {
		m.mu.Unlock()
		return
	}
	before := r.state.Status
	r.observe(c, err, time.Now())
	after := r.state
	m.mu.Unlock()
	if after.Status == before {
		return
	}
	m.cfg.Logger.Info("health changed", "target", c.Target(), "status", after.Status.String(), "reason", after.Reason)
	m.cfg.OnChange()
}

// observe counts one answer. Only answers in a row count: a good one between bad
// ones starts the count anew.
func (r *runner) observe(c Check, err error, now time.Time) {
	good := err == nil
	text := "answers well"
	status, need, name := Up, c.Rise, "rise"
	if !good {
		text = err.Error()
		status, need, name = Down, c.Fall, "fall"
	}
	if r.state.Status == status {
		r.row, r.good = 0, good
		r.state.Reason = text
		return
	}
	if r.good != good {
		r.row = 0
	}
	r.good = good
	r.row++
	if r.row < need {
		r.state.Reason = fmt.Sprintf("%s (%d of %s %d)", text, r.row, name, need)
		return
	}
	r.row = 0
	r.state = State{Status: status, Reason: text, Since: now}
}
