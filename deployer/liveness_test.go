package deployer_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
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

// TestHeartbeatsOfALargeFleet: with the nodes that report the interval grows, and with
// it how long each may be silent. What a node was told counts until it hears otherwise,
// also after a restart with another configuration.
func TestHeartbeatsOfALargeFleet(t *testing.T) {
	const nodes = 40
	w := newWorld(t, func(c *deployer.Config) { c.HeartbeatRate = 2 })
	var ids []string
	for i := range nodes {
		ids = append(ids, fmt.Sprintf("node%02d", i))
	}
	w.declare(declared(ids...)...)
	w.tick()
	if told := w.HeartbeatInterval(); told != 10*time.Second {
		t.Errorf("before anybody reports: %s", told)
	}
	says := func(id string) time.Duration {
		r := report(node.PhaseReady)
		r.MachineID = "machine-of-" + id
		return w.says(id, r).HeartbeatInterval
	}
	for _, id := range ids {
		if told := says(id); told != 10*time.Second {
			t.Fatalf("%s is told %s before the nodes were counted", id, told)
		}
	}
	w.clock.add(10 * time.Second)
	w.tick()
	const stretched = 25 * time.Second // 40 nodes at 2 a second are 20s; 24.4s is the next step
	for _, id := range ids[1:] {
		if told := says(id); told != stretched {
			t.Fatalf("%s is told %s, want %s", id, told, stretched)
		}
	}
	before := w.store.updates.Load()
	for _, id := range ids[1:] {
		says(id)
	}
	if wrote := w.store.updates.Load() - before; wrote != 0 {
		t.Errorf("heartbeats at the longer interval made %d writes", wrote)
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	silent := func(when string, old, others node.Reachability) {
		t.Helper()
		w.tick()
		if v := w.node("node00"); v.Reachability != old {
			t.Errorf("%s: the one that was told 10s is %s, want %s", when, v.Reachability, old)
		}
		if v := w.node("node01"); v.Reachability != others {
			t.Errorf("%s: one that was told %s is %s, want %s", when, stretched, v.Reachability, others)
		}
	}
	w.clock.add(75 * time.Second) // three heartbeats of 25s
	silent("as long as it may be", node.Offline, node.Online)
	w.clock.add(time.Second)
	silent("longer", node.Offline, node.Offline)

	w.cfg.HeartbeatRate = 1000
	w.restart()
	silent("restarted", node.Unknown, node.Unknown)
	w.clock.add(31 * time.Second)
	silent("half a minute later", node.Offline, node.Unknown)
	w.clock.add(45 * time.Second)
	silent("later than the three that it was told", node.Offline, node.Offline)
	if told := says("node01"); told != 10*time.Second {
		t.Errorf("told %s after the restart", told)
	}
}

// TestFlappingLink: a link that comes and goes moves reachability at most, and only
// when it was away for long. The state stays, and nothing is written.
func TestFlappingLink(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	w.says("node01", report(node.PhaseReady))
	history, before := len(w.node("node01").History), w.store.updates.Load()
	for i := range 200 {
		away := time.Duration(i%6) * 10 * time.Second // up to 50s, where 30s are offline
		w.clock.add(away)
		w.tick()
		want := node.Online
		if away > 30*time.Second {
			want = node.Offline
		}
		if v := w.node("node01"); v.State != node.Active || v.Reachability != want {
			t.Fatalf("after %s of silence: %s, %s", away, v.State, v.Reachability)
		}
		w.says("node01", report(node.PhaseReady))
		if v := w.node("node01"); v.Reachability != node.Online {
			t.Fatalf("heard, and %s", v.Reachability)
		}
	}
	if v := w.node("node01"); len(v.History) != history || w.store.updates.Load() != before {
		t.Errorf("%d lines of history and %d writes of a link that flapped", len(v.History)-history, w.store.updates.Load()-before)
	}
}

// TestManyLate: nodes whose deadlines pass at once are failed at once, since a store that is
// away takes its time to refuse each; and what it refuses is told in one line.
func TestManyLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const late = 300
	var ids []string
	for i := range late {
		ids = append(ids, fmt.Sprintf("node%03d", i))
	}
	w.declare(declared(ids...)...)
	for _, id := range ids {
		w.says(id, report(node.PhaseBooted))
	}
	w.clock.add(31 * time.Minute)
	w.store.broken.Store(true)
	var under atomic.Int32
	two := make(chan struct{})
	w.store.before = func() {
		if under.Add(1) == 2 {
			close(two)
		}
		select {
		case <-two:
		case <-time.After(10 * time.Second):
		}
	}
	if err := w.Tick(t.Context()); err == nil || !strings.Contains(err.Error(), "and so with 299 other nodes") || len(err.Error()) > 200 {
		t.Errorf("%v", err)
	}
	select {
	case <-two:
	default:
		t.Error("one after the other")
	}
	w.store.before = nil
	w.store.broken.Store(false)
	w.tick()
	for _, id := range ids {
		if n := w.node(id); n.State != node.Failed {
			t.Fatalf("%s is %s", id, n.State)
		}
	}
}
