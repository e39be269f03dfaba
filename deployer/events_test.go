package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

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
	if _, err := w.Operate(t.Context(), "node01", node.EventDecommission, deployer.Operator{Name: "alice"}, "sold"); err != nil {
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

// TestRefusalIsTriedAgain: a refusal that could not be written does not count as told.
func TestRefusalIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store.noAppends.Store(true)
	for i := range 60 { // nor does it take from the others' budget
		w.refused(fmt.Sprintf("stray%d", i), report(node.PhaseBooted), node.CodeUnknownNode)
	}
	w.store.noAppends.Store(false)
	for range 2 {
		w.refused("stray0", report(node.PhaseBooted), node.CodeUnknownNode)
	}
	page, err := w.Events(t.Context(), "", 1000)
	if err != nil || len(page.Events) != 1 || page.Events[0].Node != "stray0" || page.Events[0].Code != node.CodeUnknownNode {
		t.Errorf("%+v, %v", page.Events, err)
	}
}

// leaveStore has the one who asks for a node leave once it was read.
type leaveStore struct {
	store.Store
	leave func()
}

func (s *leaveStore) Get(ctx context.Context, id string) (node.Node, error) {
	defer s.leave()
	return s.Store.Get(ctx, id)
}

// TestRefusedWhoLeft: a refusal is noted once also where its client leaves.
func TestRefusedWhoLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaves := &leaveStore{Store: w.store}
	w.cfg.Store = leaves
	r, err := deployer.New(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, leave := context.WithCancel(t.Context())
		leaves.leave = leave
		var refused *node.RefusedError
		if _, err := r.PhoneHome(ctx, "stray", report(node.PhaseBooted)); !errors.As(err, &refused) || ctx.Err() == nil {
			t.Errorf("%v", err)
		}
	}
	if page, err := w.Events(t.Context(), "", 1000); err != nil || len(page.Events) != 1 {
		t.Errorf("%+v, %v", page.Events, err)
	}
}
