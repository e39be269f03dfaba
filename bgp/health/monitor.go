package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what a Monitor needs; only OnChange is required.
type Config struct {
	OnChange func()                             // called after any check's Status changed; must not block
	Probe    func(context.Context, Check) error // nil: Probe of this package
	Logger   *slog.Logger                       // nil: silent
	Users    func(Check) []netip.Addr           // the VIPs that depend on a check, for the log; nil: not logged
	// MaxConcurrent is how many probes are under way at once; 0: as many as the
	// process can open files for. No check has two, so it matters only to thousands.
	MaxConcurrent int
}

// filesForProbes is how many probes the process has files for. A probe needs one,
// two while it looks up a name or tries both families; the rest keeps a few.
func filesForProbes() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024
	}
	return int(min(max(limit.Cur, 128+64)-64, 1<<20)) / 2
}

// Monitor runs checks and keeps their states. Methods may be called concurrently.
type Monitor struct {
	cfg     Config
	slots   chan struct{}
	wg      sync.WaitGroup
	onProbe func(Check, time.Duration, error) // nil: nobody asks
	late    atomic.Int64                      // when a late probe was last told of, in nanoseconds since 1970

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
	if cfg.MaxConcurrent == 0 {
		cfg.MaxConcurrent = filesForProbes()
	}
	return &Monitor{cfg: cfg, slots: make(chan struct{}, cfg.MaxConcurrent), runners: map[Check]*runner{}}
}

// OnProbe makes the monitor call f after each answer, concurrently. Call it before Update.
func (m *Monitor) OnProbe(f func(c Check, took time.Duration, err error)) { m.onProbe = f }

// Count is how many checks have each status.
func (m *Monitor) Count() map[Status]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := map[Status]int{}
	for _, r := range m.runners {
		counts[r.state.Status]++
	}
	return counts
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

// eager is the interval of a new check as long as all of its answers are good, so
// that after a crash a VIP is back soon, however rarely its check asks. A bad answer
// is given the time of Fall: a host that boots may not be ready yet.
const eager = 100 * time.Millisecond

// run asks until ctx ends. The first question waits a random part of the
// interval, at most a second, so that many checks do not all ask at once.
func (m *Monitor) run(ctx context.Context, c Check, r *runner) {
	defer r.cancel()
	timer := time.NewTimer(rand.N(min(c.Interval, time.Second)/4 + 1))
	defer timer.Stop()
	for asked := 1; ; asked++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		due := time.Now()
		err := m.probe(ctx, c, due)
		if ctx.Err() != nil {
			return // cut off by us, so it says nothing of the target
		}
		m.record(c, r, err)
		interval := c.Interval
		if good := err == nil; good && asked < c.Rise && r.row == asked {
			interval = min(interval, eager)
		}
		timer.Reset(time.Until(due.Add(jitter(interval))))
	}
}

// jitter is d ±10 %.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

func (m *Monitor) probe(ctx context.Context, c Check, due time.Time) error {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.slots }()
	m.reportLate(c, time.Since(due))
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
	defer cancel()
	began := time.Now()
	err := m.cfg.Probe(ctx, c)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		err = fmt.Errorf("no answer within %s", c.Timeout)
	}
	if m.onProbe != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		m.onProbe(c, time.Since(began), err)
	}
	return err
}

// reportLate warns, at most once a minute, that checks wait for one another.
func (m *Monitor) reportLate(c Check, by time.Duration) {
	if by < max(c.Interval/2, 100*time.Millisecond) {
		return
	}
	now, last := time.Now().UnixNano(), m.late.Load()
	if now-last < int64(time.Minute) || !m.late.CompareAndSwap(last, now) {
		return
	}
	m.cfg.Logger.Warn("checks start late, for want of open files; raise LimitNOFILE, or check less",
		"target", c.Target(), "late", by, "at_once", cap(m.slots))
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
	level, about := slog.LevelInfo, []any{"target", c.Target(), "status", after.Status.String(), "reason", after.Reason}
	if after.Status == Down {
		level = slog.LevelWarn
	}
	if m.cfg.Users != nil {
		about = append(about, "vips", some(m.cfg.Users(c)))
	}
	m.cfg.Logger.Log(context.Background(), level, "health changed", about...)
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

// some shows the first few addresses.
func some(addrs []netip.Addr) string {
	const most = 8
	var texts []string
	for i, a := range addrs {
		if i == most {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " ")
}
