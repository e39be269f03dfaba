package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

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

// TestDeclareInterrupted: one error, and not one for each of thousands of nodes.
func TestDeclareInterrupted(t *testing.T) {
	w := newWorld(t)
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = fmt.Sprintf("node%03d", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Declare(ctx, declared(ids...))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "and so with 99 other nodes") || len(err.Error()) > 500 {
		t.Errorf("%v", err)
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

// TestUnknownNodeThatLeft: who leaves before he is recorded keeps no place.
func TestUnknownNodeThatLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *deployer.Config) { c.AllowUnknownNodes, c.MaxUnknownNodes = true, 1 })
	ctx, leave := context.WithCancel(t.Context())
	w.store.before = leave
	if _, err := w.PhoneHome(ctx, "stranger1", report(node.PhaseBooted)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.store.before = nil
	w.says("stranger2", report(node.PhaseBooted))
	w.refused("stranger3", report(node.PhaseBooted), node.CodeTooManyUnknown)
}

// TestUnknownNodeThatLeftShared: a store that is shared may record him yet, so he keeps his
// place until the nodes are counted.
func TestUnknownNodeThatLeftShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *deployer.Config) {
		c.AllowUnknownNodes, c.MaxUnknownNodes = true, 1
		c.Lead = func() bool { return true }
	})
	ctx, leave := context.WithCancel(t.Context())
	w.store.before = leave
	if _, err := w.PhoneHome(ctx, "stranger1", report(node.PhaseBooted)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.store.before = nil
	w.refused("stranger2", report(node.PhaseBooted), node.CodeTooManyUnknown)
	w.tick()
	w.says("stranger2", report(node.PhaseBooted))
}
