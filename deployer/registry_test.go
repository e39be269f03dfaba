package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
}

var errBroken = errors.New("no space left on device")

func (s *countingStore) Update(ctx context.Context, id string, change store.Change) error {
	s.updates.Add(1)
	if s.broken.Load() {
		return errBroken
	}
	return s.Store.Update(ctx, id, change)
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

func TestJoin(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	if v := w.node("node01"); v.State != node.Pending || v.Reachability != node.Unknown || v.Config != node.ConfigUnknown {
		t.Fatalf("declared: %+v", v)
	}
	answer := w.says("node01", report(node.PhaseBooted))
	if answer.State != node.Provisioning || answer.HeartbeatInterval != 10*time.Second || answer.ConfigHash != hash1 ||
		answer.Message != "Provisioning, attempt 1, expected ready by 2026-03-01T12:30:00Z" {
		t.Fatalf("booted: %+v", answer)
	}
	answer = w.says("node01", report(node.PhaseReady))
	if answer.State != node.Active || answer.Message != "Active" || answer.Config != node.InSync {
		t.Fatalf("ready: %+v", answer)
	}
	drifted := report(node.PhaseReady)
	drifted.Hash = hash2
	drifted.IP = netip.MustParseAddr("10.9.9.9")
	answer = w.says("node01", drifted)
	const message = "Active; runs another configuration than the manifest expects; reports ip 10.9.9.9 where 10.0.0.0 is declared"
	if answer.Config != node.Drifted || answer.Message != message {
		t.Errorf("drifted: %s, %q", answer.Config, answer.Message)
	}
	w.refused("node02", report(node.PhaseReady), node.CodeUnknownNode)
	if _, err := w.Node(t.Context(), "node02"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the refused node is there: %v", err)
	}
}

// TestRestart: a crash loses no timer, and a deployer that has just started calls
// nobody offline.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01", "node02")...)
	w.says("node01", report(node.PhaseBooted))
	w.says("node02", report(node.PhaseReady))

	w.clock.add(29 * time.Minute)
	w.restart()
	w.tick()
	if v := w.node("node01"); v.State != node.Provisioning || v.Reachability != node.Unknown {
		t.Errorf("after the restart: %s, %s", v.State, v.Reachability)
	}
	other := report(node.PhaseBooted)
	other.MachineID = machineB
	w.refused("node02", other, node.CodeMachineConflict)

	w.clock.add(31 * time.Second)
	if v := w.node("node02"); v.Reachability != node.Offline || v.State != node.Active {
		t.Errorf("silent for a while: %s, %s", v.Reachability, v.State)
	}
	w.clock.add(30 * time.Second)
	w.tick()
	v := w.node("node01")
	if v.State != node.Failed || v.LastError == nil || !strings.HasPrefix(v.LastError.Message, "not ready within 30m0s") {
		t.Errorf("past the deadline set before the restart: %s, %+v", v.State, v.LastError)
	}
	if answer := w.says("node02", other); answer.State != node.Provisioning || answer.MachineID != machineB {
		t.Errorf("takeover of an offline node: %s by %s", answer.State, answer.MachineID)
	}
}

// TestClockSetBack: what a clock wrote that was ten years ahead holds nothing up
// once it is right.
func TestClockSetBack(t *testing.T) {
	const ahead = 10 * 365 * 24 * time.Hour
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted=%v", restarted), func(t *testing.T) {
			w := newWorld(t)
			w.clock.add(ahead)
			w.restart()
			w.declare(declared("alive", "dead", "coming")...)
			for range 2 { // a heartbeat too, which is not in the record
				w.clock.add(time.Second)
				w.says("alive", report(node.PhaseReady))
				w.says("dead", report(node.PhaseReady))
			}
			w.says("coming", report(node.PhaseBooted))
			if err := w.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.clock.add(-ahead)
			if restarted {
				w.restart()
			}

			if v := w.node("dead"); v.Reachability != node.Unknown {
				t.Errorf("heard in the future: %s", v.Reachability)
			}
			other := report(node.PhaseBooted)
			other.MachineID = machineB
			w.refused("dead", other, node.CodeMachineConflict)
			w.says("alive", report(node.PhaseReady))
			w.tick()
			for _, id := range []string{"alive", "dead"} {
				if v := w.node(id); !v.LastSeen.Equal(w.clock.Now()) || v.Reachability != node.Online {
					t.Errorf("%s: heard %s, %s at %s", id, v.LastSeen, v.Reachability, w.clock.Now())
				}
			}
			v := w.node("coming")
			if latest := w.clock.Now().Add(30 * time.Minute); !v.Deadline.Equal(latest) || v.Since.After(w.clock.Now()) || v.State != node.Provisioning {
				t.Errorf("the deadline is %s of %s since %s, want %s", v.Deadline, v.State, v.Since, latest)
			}

			if err := w.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.clock.add(29 * time.Second)
			if restarted {
				w.restart()
			}
			w.clock.add(31 * time.Second)
			w.says("alive", report(node.PhaseReady))
			w.tick()
			if alive, dead := w.node("alive"), w.node("dead"); alive.Reachability != node.Online || dead.Reachability != node.Offline {
				t.Errorf("a minute later they are %s and %s", alive.Reachability, dead.Reachability)
			}
			w.says("dead", other)
			w.clock.add(30 * time.Minute)
			w.tick()
			if v := w.node("coming"); v.State != node.Failed || !strings.HasPrefix(v.LastError.Message, "not ready within 30m0s") {
				t.Errorf("past its deadline: %s, %+v", v.State, v.LastError)
			}
		})
	}
}

// TestResetForgetsWhenHeard: what was heard of the old machine is not news of the
// next one.
func TestResetForgetsWhenHeard(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	for range 2 {
		w.clock.add(time.Second)
		w.says("node01", report(node.PhaseReady))
	}
	if _, err := w.Reset(t.Context(), "node01", ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if v := w.node("node01"); !v.LastSeen.IsZero() || v.Reachability != node.Unknown {
			t.Errorf("heard %s, %s", v.LastSeen, v.Reachability)
		}
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.restart()
	}
}

// TestHeartbeatsAreNotWritten: liveness is stored in one write for all.
func TestHeartbeatsAreNotWritten(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01", "node02")...)
	for _, id := range []string{"node01", "node02"} {
		w.says(id, report(node.PhaseReady))
	}
	before := w.store.updates.Load()
	for range 100 {
		w.clock.add(10 * time.Second)
		w.says("node01", report(node.PhaseReady))
		w.says("node02", report(node.PhaseReady))
	}
	if wrote := w.store.updates.Load() - before; wrote != 0 {
		t.Errorf("200 heartbeats made %d writes", wrote)
	}
	if v := w.node("node01"); !v.LastSeen.Equal(w.clock.Now()) || v.Reachability != node.Online {
		t.Errorf("last seen %s, %s", v.LastSeen, v.Reachability)
	}
	for range 2 { // the second has nothing to do
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.store.seen.Load(); n != 1 {
		t.Errorf("two flushes made %d writes, want 1", n)
	}
	w.restart()
	if v := w.node("node02"); !v.LastSeen.Equal(w.clock.Now()) {
		t.Errorf("last seen %s after the restart, want %s", v.LastSeen, w.clock.Now())
	}

	changed := report(node.PhaseReady)
	changed.Hostname = "new-name"
	w.says("node01", changed)
	w.restart()
	if v := w.node("node01"); v.Hostname != "new-name" {
		t.Error("a heartbeat that changed something was not durable when answered")
	}
}

func TestDeclare(t *testing.T) {
	w := newWorld(t)
	if done := w.declare(declared("node01", "node02")...); done != (deployer.Declared{Nodes: 2, Added: 2}) {
		t.Errorf("first: %+v", done)
	}
	w.says("node01", report(node.PhaseReady))
	if done := w.declare(declared("node01", "node02")...); done != (deployer.Declared{Nodes: 2}) {
		t.Errorf("the same again: %+v", done)
	}
	next := declared("node01", "node03")
	next[0].ConfigHash = hash2
	if done := w.declare(next...); done != (deployer.Declared{Nodes: 2, Added: 1, Changed: 1, Undeclared: 1}) {
		t.Errorf("changed: %+v", done)
	}
	if v := w.node("node01"); v.State != node.Active || v.Config != node.Drifted {
		t.Errorf("node01 is %s, %s", v.State, v.Config)
	}
	if v := w.node("node02"); v.Declared {
		t.Error("node02 is still declared")
	}
	w.refused("node02", report(node.PhaseReady), node.CodeUnknownNode) // it never joined
	w.says("node03", report(node.PhaseReady))
	if done := w.declare(next[0]); done != (deployer.Declared{Nodes: 1, Undeclared: 1}) {
		t.Errorf("node03 left: %+v", done)
	}
	if answer := w.says("node03", report(node.PhaseReady)); answer.Message != "Active; not declared in the manifest" {
		t.Errorf("a node that left the manifest is told %q", answer.Message)
	}
	for name, bad := range map[string][]node.Declaration{
		"twice":    declared("node01", "node01"),
		"bad id":   declared("Node 1"),
		"no role":  {{ID: "node01"}},
		"bad hash": {{ID: "node01", Role: "worker", ConfigHash: "md5:1"}},
	} {
		if _, err := w.Declare(t.Context(), bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if v := w.node("node01"); v.ConfigHash != hash2 {
		t.Error("a bad declaration changed something")
	}
	views, err := w.Nodes(t.Context())
	if err != nil || len(views) != 3 {
		t.Errorf("%d nodes, %v", len(views), err)
	}
}

func TestUnknownNodes(t *testing.T) {
	w := newWorld(t, func(c *deployer.Config) { c.AllowUnknownNodes, c.MaxUnknownNodes = true, 2 })
	w.declare(declared("node01")...)
	if answer := w.says("stray1", report(node.PhaseReady)); answer.Declared || answer.Role != "worker" {
		t.Errorf("stray1: %+v", answer)
	}
	w.says("stray2", report(node.PhaseReady))
	w.refused("stray3", report(node.PhaseReady), node.CodeTooManyUnknown)
	w.says("stray1", report(node.PhaseReady))
	w.restart()
	w.refused("stray3", report(node.PhaseReady), node.CodeTooManyUnknown)
	w.declare(declared("node01", "stray1")...)
	w.says("stray3", report(node.PhaseReady))
	w.refused("stray4", report(node.PhaseReady), node.CodeTooManyUnknown)

	// A place is given back when the record could not be written.
	w = newWorld(t, func(c *deployer.Config) { c.AllowUnknownNodes, c.MaxUnknownNodes = true, 1 })
	w.store.broken.Store(true)
	if _, err := w.PhoneHome(t.Context(), "stray1", report(node.PhaseReady)); !errors.Is(err, errBroken) {
		t.Errorf("with a broken store: %v", err)
	}
	w.store.broken.Store(false)
	w.says("stray2", report(node.PhaseReady))
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	if err := w.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.refused("node02", report(node.PhaseReady), node.CodeUnknownNode)
	if err := w.Health(t.Context()); err != nil {
		t.Errorf("a refusal is no ill health: %v", err)
	}
	w.store.broken.Store(true)
	if _, err := w.PhoneHome(t.Context(), "node01", report(node.PhaseReady)); !errors.Is(err, errBroken) {
		t.Errorf("phone home: %v", err)
	}
	if err := w.Health(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("health: %v", err)
	}
	if v := w.node("node01"); v.State != node.Pending {
		t.Errorf("the failed write left %s", v.State)
	}
	w.store.broken.Store(false)
	w.says("node01", report(node.PhaseReady))
	if err := w.Health(t.Context()); err != nil {
		t.Errorf("mended: %v", err)
	}
	_ = w.store.Close()
	if err := w.Health(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestRun: the loop fails an overdue node, stores liveness, and stores it once
// more at its end.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *deployer.Config) {
			c.Now = time.Now
			c.ProvisioningTimeout = time.Minute
		})
		w.declare(declared("node01", "node02")...)
		w.says("node01", report(node.PhaseBooted))
		w.says("node02", report(node.PhaseReady))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()

		time.Sleep(50 * time.Second)
		w.says("node02", report(node.PhaseReady))
		if v := w.node("node01"); v.State != node.Provisioning {
			t.Errorf("after 50s: %s", v.State)
		}
		time.Sleep(15 * time.Second)
		if v := w.node("node01"); v.State != node.Failed {
			t.Errorf("after 65s: %s", v.State)
		}
		if n := w.store.seen.Load(); n != 1 {
			t.Errorf("%d flushes, want the one with something to store", n)
		}
		w.says("node02", report(node.PhaseReady))
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := w.store.seen.Load(); n != 2 {
			t.Errorf("%d flushes, want one more at the end", n)
		}
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestStorm: everybody speaks at once, again and again, and two machines fight
// for each node; exactly one wins and nothing is lost.
func TestStorm(t *testing.T) {
	const nodes = 200
	w := newWorld(t)
	ids := make([]string, nodes)
	for i := range ids {
		ids[i] = fmt.Sprintf("node%03d", i)
	}
	w.declare(declared(ids...)...)
	winners := make([][2]atomic.Int64, nodes)
	var wg sync.WaitGroup
	for i, id := range ids {
		for m, machine := range []string{machineA, machineB} {
			wg.Go(func() {
				for _, phase := range []node.Phase{node.PhaseBooted, node.PhaseInstalling, node.PhaseInstalled, node.PhaseReady} {
					r := report(phase)
					r.MachineID = machine
					_, err := w.PhoneHome(t.Context(), id, r)
					var refused *node.RefusedError
					switch {
					case err == nil:
						winners[i][m].Add(1)
					case !errors.As(err, &refused) || refused.Code != node.CodeMachineConflict:
						t.Errorf("%s: %v", id, err)
					}
				}
			})
		}
	}
	wg.Wait()
	w.restart()
	for i, id := range ids {
		a, b := winners[i][0].Load(), winners[i][1].Load()
		if a+b != 4 || a*b != 0 {
			t.Errorf("%s: %d reports of one machine were accepted and %d of the other", id, a, b)
		}
		if v := w.node(id); v.State != node.Active || v.Phase != node.PhaseReady {
			t.Errorf("%s is %s, %s", id, v.State, v.Phase)
		}
	}
}

// TestRefusalLog: a flood of refusals does not become a flood of lines.
func TestRefusalLog(t *testing.T) {
	var lines strings.Builder
	w := newWorld(t, func(c *deployer.Config) { c.Logger = slog.New(slog.NewTextHandler(&lines, nil)) })
	for i := range 1000 {
		w.refused(fmt.Sprintf("stray%d", i), report(node.PhaseReady), node.CodeUnknownNode)
	}
	w.clock.add(11 * time.Second)
	w.refused("stray", report(node.PhaseReady), node.CodeUnknownNode)
	if n := strings.Count(lines.String(), "\n"); n != 52 || !strings.Contains(lines.String(), "count=950") {
		t.Errorf("%d lines:\n%.2000s", n, lines.String())
	}
}

// TestEvents: what happens to nodes is there in its order; refusals are in it within a
// budget, and a manifest of thousands is one event.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	page, err := w.Events(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	after := page.Next
	next := func(want ...string) {
		t.Helper()
		page, err := w.Events(t.Context(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		after = page.Next
		var got []string
		for _, e := range page.Events {
			got = append(got, fmt.Sprint(e.Node, " ", e.Event, " ", e.From, " ", e.To, " ", e.Code))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	w.says("node01", report(node.PhaseBooted))
	w.says("node01", report(node.PhaseBooted)) // a heartbeat
	w.says("node01", report(node.PhaseReady))
	next("node01 booted Pending Provisioning ", "node01 ready Provisioning Active ")
	for range 3 {
		w.refused("node01", report(node.PhaseInstalling), node.CodeAlreadyProvisioned)
		w.refused("stray", report(node.PhaseBooted), node.CodeUnknownNode)
	}
	next("node01 refused   already_provisioned", "stray refused   unknown_node")
	for i := range 100 {
		w.refused(fmt.Sprintf("stray%d", i), report(node.PhaseBooted), node.CodeUnknownNode)
	}
	page, err = w.Events(t.Context(), after, 1000)
	if err != nil || len(page.Events) != 48 {
		t.Errorf("%d refusals more, %v", len(page.Events), err)
	}
	after = page.Next
	w.clock.add(11 * time.Minute)
	w.refused("stray", report(node.PhaseBooted), node.CodeUnknownNode)
	next("stray refused   unknown_node")
	if _, err := w.Decommission(t.Context(), "node01", "sold"); err != nil {
		t.Fatal(err)
	}
	next("node01 decommission Active Decommissioned ")
	declarations := []node.Declaration{{ID: "node08", Role: "worker"}, {ID: "node09", Role: "worker"}}
	for range 2 { // the second changes nothing
		if _, err := w.Declare(t.Context(), declarations); err != nil {
			t.Fatal(err)
		}
	}
	next(" manifest   ")
}
