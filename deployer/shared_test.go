package deployer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

// second is another registry over w's store, as another deployer that shares it.
func (w *world) second(change func(*deployer.Config)) *deployer.Registry {
	w.t.Helper()
	cfg := w.cfg
	change(&cfg)
	r, err := deployer.New(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// TestShared: of two registries over one store the leader looks after the deadlines,
// and what one does the other answers with.
func TestShared(t *testing.T) {
	var leads atomic.Int32
	leads.Store(1)
	w := newWorld(t, func(c *deployer.Config) {
		c.Lead = func() bool { return leads.Load() == 1 }
		c.AllowUnknownNodes, c.MaxUnknownNodes = true, 2
	})
	other := w.second(func(c *deployer.Config) { c.Lead = func() bool { return leads.Load() == 2 } })
	w.declare(declared("node01")...)
	w.says("node01", report(node.PhaseBooted))
	w.clock.add(31 * time.Minute)

	state := func() node.State {
		t.Helper()
		v, err := other.Node(t.Context(), "node01")
		if err != nil {
			t.Fatal(err)
		}
		return v.State
	}
	if err := other.Tick(t.Context()); err != nil || state() != node.Provisioning {
		t.Errorf("who does not lead ticked: %s, %v", state(), err)
	}
	leads.Store(2)
	w.tick()
	if state() != node.Provisioning {
		t.Error("who leads no longer ticked")
	}
	if err := other.Tick(t.Context()); err != nil || state() != node.Failed {
		t.Errorf("the new leader did not tick: %s, %v", state(), err)
	}

	// Those that the other one let in count from the next tick on.
	for _, id := range []string{"stranger1", "stranger2"} {
		if _, err := other.PhoneHome(t.Context(), id, report(node.PhaseReady)); err != nil {
			t.Fatal(err)
		}
	}
	w.tick()
	w.refused("stranger3", report(node.PhaseReady), node.CodeTooManyUnknown)
	w.declare(declared("node01", "stranger1")...)
	if err := other.Tick(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := other.PhoneHome(t.Context(), "stranger3", report(node.PhaseReady)); err != nil {
		t.Errorf("there is a place again: %v", err)
	}
}

// TestResetElsewhere: a deployer that has heard a node forgets it too when another one
// resets that node.
func TestResetElsewhere(t *testing.T) {
	w := newWorld(t)
	other := w.second(func(*deployer.Config) {})
	w.declare(declared("node01")...)
	w.says("node01", report(node.PhaseReady))
	w.clock.add(10 * time.Second)
	w.says("node01", report(node.PhaseReady)) // a heartbeat, which only this one knows of
	w.clock.add(time.Second)
	if _, err := other.Operate(t.Context(), "node01", node.EventReset, deployer.Operator{Name: "alice"}, ""); err != nil {
		t.Fatal(err)
	}
	if n := w.node("node01"); !n.LastSeen.IsZero() {
		t.Errorf("last seen %s", n.LastSeen)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := other.Node(t.Context(), "node01"); err != nil || !n.LastSeen.IsZero() {
		t.Errorf("last seen %s after the other one stored what it had heard, %v", n.LastSeen, err)
	}
}

// awayStore cannot be read while it is away.
type awayStore struct {
	*countingStore
	away atomic.Bool
}

func (s *awayStore) Get(ctx context.Context, id string) (node.Node, error) {
	if s.away.Load() {
		return node.Node{}, errors.New("etcd did not answer")
	}
	return s.countingStore.Get(ctx, id)
}

// TestDeaf: what a deployer could not hear since its store was away is no silence.
func TestDeaf(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	away := &awayStore{countingStore: w.store}
	r := w.second(func(c *deployer.Config) { c.Store = away })
	says := func() error {
		_, err := r.PhoneHome(t.Context(), "node01", report(node.PhaseReady))
		return err
	}
	reachability := func(want node.Reachability) {
		t.Helper()
		if v, err := r.Node(t.Context(), "node01"); err != nil || v.Reachability != want {
			t.Errorf("%s, %v, want %s", v.Reachability, err, want)
		}
	}
	if err := says(); err != nil {
		t.Fatal(err)
	}
	w.clock.add(time.Minute)
	reachability(node.Offline)
	if err := says(); err != nil {
		t.Fatal(err)
	}
	away.away.Store(true)
	if says() == nil || r.Health(t.Context()) == nil {
		t.Error("a store that is away is no error")
	}
	w.clock.add(time.Minute)
	away.away.Store(false)
	if err := r.Health(t.Context()); err != nil {
		t.Errorf("it is back: %v", err)
	}
	reachability(node.Unknown)
	w.clock.add(31 * time.Second)
	reachability(node.Offline)
}
