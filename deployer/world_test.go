package deployer_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	machineA = "aaaaaaaa-0000-4000-8000-000000000001"
	machineB = "bbbbbbbb-0000-4000-8000-000000000002"
	hash1    = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	hash2    = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// countingStore counts the writes of the store it wraps, and fails those for
// which broken is set.
type countingStore struct {
	store.Store
	updates, seen atomic.Int64
	broken        atomic.Bool
	noAppends     atomic.Bool
	before        func() // the next write of a record; nil: nothing
}

var errBroken = errors.New("no space left on device")

func (s *countingStore) Update(ctx context.Context, id string, change store.Change) error {
	s.updates.Add(1)
	if s.before != nil {
		s.before()
	}
	if s.broken.Load() {
		return errBroken
	}
	return s.Store.Update(ctx, id, change)
}

func (s *countingStore) Append(ctx context.Context, events ...store.Event) error {
	if s.noAppends.Load() {
		return errBroken
	}
	return s.Store.Append(ctx, events...)
}

func (s *countingStore) AppendAudit(ctx context.Context, entries ...store.Event) error {
	if s.noAppends.Load() {
		return errBroken
	}
	return s.Store.AppendAudit(ctx, entries...)
}

func (s *countingStore) Seen(ctx context.Context, heard map[string]time.Time) error {
	s.seen.Add(1)
	if s.broken.Load() {
		return errBroken
	}
	return s.Store.Seen(ctx, heard)
}

// world is a deployer with its file and its clock; restart is its next process.
type world struct {
	t     testing.TB
	path  string
	clock *clock
	cfg   deployer.Config
	store *countingStore
	*deployer.Registry
}

func newWorld(t testing.TB, change ...func(*deployer.Config)) *world {
	w := &world{t: t, path: filepath.Join(t.TempDir(), "state.db"), clock: &clock{now: start}}
	w.cfg = deployer.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: w.clock.Now}
	for _, c := range change {
		c(&w.cfg)
	}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := bolt.Open(bolt.Config{Path: w.path})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	w.store = &countingStore{Store: s}
	w.cfg.Store = w.store
	if w.Registry, err = deployer.New(w.t.Context(), w.cfg); err != nil {
		w.t.Fatal(err)
	}
}

// restart ends the process without a flush, as a crash would.
func (w *world) restart() {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func declared(ids ...string) []node.Declaration {
	var all []node.Declaration
	for i, id := range ids {
		all = append(all, node.Declaration{
			ID: id, Role: "worker", IP: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), ConfigHash: hash1,
		})
	}
	return all
}

func (w *world) declare(declarations ...node.Declaration) deployer.Declared {
	w.t.Helper()
	done, err := w.Declare(w.t.Context(), declarations)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func report(phase node.Phase) node.Report {
	return node.Report{MachineID: machineA, BootID: "boot1", Phase: phase, Role: "worker", Hash: hash1}
}

func (w *world) says(id string, r node.Report) deployer.Answer {
	w.t.Helper()
	answer, err := w.PhoneHome(w.t.Context(), id, r)
	if err != nil {
		w.t.Fatalf("%s says %s: %v", id, r.Phase, err)
	}
	return answer
}

func (w *world) refused(id string, r node.Report, code string) {
	w.t.Helper()
	_, err := w.PhoneHome(w.t.Context(), id, r)
	var refused *node.RefusedError
	if !errors.As(err, &refused) || refused.Code != code {
		w.t.Errorf("%s says %s: %v, want %s", id, r.Phase, err, code)
	}
}

func (w *world) node(id string) deployer.View {
	w.t.Helper()
	v, err := w.Node(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) tick() {
	w.t.Helper()
	if err := w.Tick(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}
