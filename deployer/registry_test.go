package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

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
	w.refused("node02", other, node.CodeMachineConflict)
	if _, err := w.Operate(t.Context(), "node02", node.EventReset, deployer.Operator{Name: "alice"}, "its board is broken"); err != nil {
		t.Fatal(err)
	}
	if answer := w.says("node02", other); answer.State != node.Provisioning || answer.MachineID != machineB {
		t.Errorf("in the place of a machine that is dead: %s by %s", answer.State, answer.MachineID)
	}
}

// TestDeadlineWhileAway: a deadline that passed while nobody listened is judged once the
// node has had the time to speak, so that one which was ready long ago is not Failed first.
func TestDeadlineWhileAway(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01", "node02")...)
	w.says("node01", report(node.PhaseBooted))
	w.says("node02", report(node.PhaseBooted))
	w.clock.add(time.Hour)
	w.restart()
	w.clock.add(10 * time.Second)
	w.tick()
	w.says("node01", report(node.PhaseReady))
	v := w.node("node01")
	if last := v.History[len(v.History)-1]; v.State != node.Active || last.From != node.Provisioning {
		t.Errorf("it became %s from %s", v.State, last.From)
	}
	w.clock.add(21 * time.Second)
	w.tick()
	if v := w.node("node02"); v.State != node.Failed || !strings.HasPrefix(v.LastError.Message, "not ready within 30m0s") {
		t.Errorf("the one that says nothing is %s, %+v", v.State, v.LastError)
	}
}

// TestAsleep: a deployer that did not run for a while, or whose clock was set forward, has
// not heard anybody meanwhile, and takes that for no silence.
func TestAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		w := newWorld(t, func(c *deployer.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		w.declare(declared("node01", "coming")...)
		w.says("node01", report(node.PhaseReady))
		w.says("coming", report(node.PhaseBooted))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(10 * time.Second)
		ahead.Store(int64(24 * time.Hour))
		time.Sleep(2 * time.Second)
		if v := w.node("node01"); v.Reachability != node.Unknown {
			t.Errorf("a day later: %s", v.Reachability)
		}
		other := report(node.PhaseReady)
		other.MachineID = machineB
		w.refused("node01", other, node.CodeMachineConflict)
		time.Sleep(10 * time.Second)
		if v := w.node("coming"); v.State != node.Provisioning {
			t.Errorf("it had no time to speak, and is %s", v.State)
		}
		time.Sleep(31 * time.Second)
		if v := w.node("node01"); v.Reachability != node.Offline {
			t.Errorf("silent for as long as it may: %s", v.Reachability)
		}
		if v := w.node("coming"); v.State != node.Failed {
			t.Errorf("past its deadline: %s", v.State)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
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
				w.says("dead", report(node.PhaseBooted))
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
	if _, err := w.Operate(t.Context(), "node01", node.EventReset, deployer.Operator{Name: "alice"}, ""); err != nil {
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

// smallStore takes no record, and can read none.
type smallStore struct{ store.Store }

func (smallStore) Get(_ context.Context, id string) (node.Node, error) {
	return node.Node{}, &store.CorruptError{ID: id, Key: id, Err: errBroken}
}

func (smallStore) Update(context.Context, string, store.Change) error {
	return fmt.Errorf("%w: the record has a byte", store.ErrTooLarge)
}

// TestOneRecord: one that does not fit, or cannot be read, is no failure of the store.
func TestOneRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declare(declared("node01")...)
	r, err := deployer.New(t.Context(), deployer.Config{Store: smallStore{w.store}, Logger: w.cfg.Logger})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Operate(t.Context(), "node01", node.EventHold, deployer.Operator{Name: "alice"}, ""); !errors.Is(err, store.ErrTooLarge) {
		t.Error(err)
	}
	if err := r.Health(t.Context()); err != nil { // it asks for a node of the name health, which may be there
		t.Error(err)
	}
}
