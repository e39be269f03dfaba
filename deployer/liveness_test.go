package deployer_test

import (
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

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
