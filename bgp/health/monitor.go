package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what a Monitor needs; only OnChange is required.
type Config struct {
	OnChange func(Check, State)                 // called after the Status of a check changed, with what it is; must not block
	Probe    func(context.Context, Check) error // nil: Probe of this package
	Logger   *slog.Logger                       // nil: silent
	// MaxConcurrent is how many probes over the network are under way at once; 0: as
	// many as the process can open files for. No check has two, so it matters only to thousands.
	MaxConcurrent int
}

// How many probes that cost others something are under way at once.
const (
	maxPrograms = 64
	maxBuses    = 16 // dbus-daemon has 256 connections for one user
)

// filesForProbes is how many probes over the network the process has files for. One
// needs one, two while it looks up a name or tries both families, a program four; the
// rest keeps a few.
func filesForProbes() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024
	}
	const others = 64 + 4*maxPrograms + maxBuses
	return int(min(max(limit.Cur, others+128)-others, 1<<20)) / 2
}

// Monitor runs checks and keeps their states. Methods may be called concurrently.
type Monitor struct {
	cfg     Config
	wg      sync.WaitGroup                    // of probes
	onProbe func(Check, time.Duration, error) // nil: nobody asks
	late    atomic.Int64                      // when a late probe was last told of, in nanoseconds since 1970
	unasked atomic.Int64                      // the same of one that could not be made

	mu       sync.Mutex
	closed   bool
	runners  map[Check]*runner
	network  queue
	programs queue
	buses    queue
}

type runner struct {
	check  Check
	due    time.Time          // of the next probe
	index  int                // in its queue; -1: a probe is under way
	cancel context.CancelFunc // of that
	gone   bool               // from the configuration

	asked int
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
	return &Monitor{
		cfg: cfg, runners: map[Check]*runner{},
		network:  queue{limit: cfg.MaxConcurrent, advice: "checks start late, for want of open files; raise LimitNOFILE, or check less"},
		programs: queue{limit: maxPrograms, advice: "exec checks start late, since too many are under way; check less, or by quicker programs"},
		buses:    queue{limit: maxBuses, advice: "systemd checks start late, since too many are under way; check less"},
	}
}

func (m *Monitor) queueOf(k Kind) *queue {
	switch k {
	case Exec:
		return &m.programs
	case Systemd:
		return &m.buses
	default:
		return &m.network
	}
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

// Update makes checks the ones that run. Those that ran before keep their state. The
// first question of a new one waits a random part of the interval, at most a quarter of
// a second, so that many checks do not all ask at once.
func (m *Monitor) Update(checks []Check) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	now := time.Now()
	wanted := make(map[Check]bool, len(checks))
	for _, c := range checks {
		wanted[c] = true
		if m.runners[c] != nil {
			continue
		}
		r := &runner{check: c, due: now.Add(rand.N(min(c.Interval, time.Second)/4 + 1)),
			state: State{Status: Unknown, Reason: "not asked yet", Since: now}}
		m.runners[c] = r
		m.queueOf(c.Kind).add(r)
	}
	for c, r := range m.runners {
		if !wanted[c] {
			m.remove(c, r)
		}
	}
	for _, q := range []*queue{&m.network, &m.programs, &m.buses} {
		m.start(q)
	}
}

func (m *Monitor) remove(c Check, r *runner) {
	r.gone = true
	m.queueOf(c.Kind).remove(r)
	if r.cancel != nil {
		r.cancel()
	}
	delete(m.runners, c)
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
		m.remove(c, r)
	}
	for _, q := range []*queue{&m.network, &m.programs, &m.buses} {
		if q.timer != nil {
			q.timer.Stop()
		}
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// start starts the probes that are due, and sees to it that the next ones will be.
// The caller holds m.mu.
func (m *Monitor) start(q *queue) {
	if m.closed {
		return
	}
	now := time.Now()
	for r := q.next(now); r != nil; r = q.next(now) {
		ctx, cancel := context.WithCancel(context.Background())
		r.cancel = cancel
		late := now.Sub(r.due)
		m.wg.Go(func() {
			defer cancel()
			m.reportLate(q, r.check, late)
			m.record(q, r, m.probe(ctx, r.check))
		})
	}
	if q.running >= q.limit || len(q.waiting) == 0 {
		return // until a probe ends, or there are new checks
	}
	wait := q.waiting[0].due.Sub(now)
	if q.timer != nil {
		q.timer.Reset(wait)
		return
	}
	q.timer = time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.start(q)
	})
}

func (m *Monitor) probe(ctx context.Context, c Check) error {
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
func (m *Monitor) reportLate(q *queue, c Check, by time.Duration) {
	if by < max(c.Interval/2, 100*time.Millisecond) {
		return
	}
	if onceAMinute(&m.late) {
		m.cfg.Logger.Warn(q.advice, "target", c.Target(), "late", by, "at_once", q.limit)
	}
}

// onceAMinute reports whether it did not for the last minute.
func onceAMinute(at *atomic.Int64) bool {
	now, last := time.Now().UnixNano(), at.Load()
	return now-last >= int64(time.Minute) && at.CompareAndSwap(last, now)
}

var errTimeout = errors.New("check timed out")

// record takes the answer to a probe, tells of a change, and plans the next one: what
// follows from that is told later.
func (m *Monitor) record(q *queue, r *runner, err error) {
	c := r.check
	now := time.Now()
	m.mu.Lock()
	gone := r.gone // cut off by us, so it says nothing of the target
	before := r.state.Status
	if !gone {
		r.asked++
		r.observe(c, err, now)
	}
	after := r.state
	m.mu.Unlock()
	if !gone && errors.Is(err, ErrNotAsked) && onceAMinute(&m.unasked) {
		m.cfg.Logger.Warn("checks cannot be asked, and stay as they are", "target", c.Target(), "error", err)
	}
	if after.Status != before {
		m.cfg.OnChange(c, after)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	q.running--
	r.cancel = nil
	if !r.gone {
		if r.due = r.due.Add(jitter(r.interval())); r.due.Before(now) {
			r.due = now // behind those that wait already
		}
		q.add(r)
	}
	m.start(q)
}

// eager is the interval of a new check as long as all of its answers are good, so
// that after a crash a VIP is back soon, however rarely its check asks. A bad answer
// is given the time of Fall: a host that boots may not be ready yet.
const eager = 100 * time.Millisecond

// interval is how long after the probe that was answered last the next one is due.
func (r *runner) interval() time.Duration {
	interval := r.check.Interval
	if r.row > 0 && r.check.Fast > 0 {
		interval = min(interval, r.check.Fast)
	}
	if r.good && r.asked < r.check.Rise && r.row == r.asked {
		interval = min(interval, eager)
	}
	return interval
}

// jitter is d ±10 %.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// maxAnswerReason is how much of why an answer is bad is kept, in bytes. Others have a say
// in it.
const maxAnswerReason = 400

// observe counts one answer. Only answers in a row count: a good one between bad
// ones starts the count anew.
func (r *runner) observe(c Check, err error, now time.Time) {
	if errors.Is(err, ErrNotAsked) {
		r.state.NotAsked = shorten(err.Error(), maxAnswerReason)
		return
	}
	r.state.NotAsked = ""
	good := err == nil
	text := "answers well"
	status, need, name := Up, c.Rise, "rise"
	if !good {
		text = shorten(err.Error(), maxAnswerReason)
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
