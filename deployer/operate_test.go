package deployer_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/node"
)

// audited is how many entries of the audit log each operator has, by result.
func (w *world) audited() map[string]int {
	w.t.Helper()
	page, err := w.Audit(w.t.Context(), "", 1000)
	if err != nil || page.More {
		w.t.Fatal(err, page.More)
	}
	counts := map[string]int{}
	for _, e := range page.Events {
		counts[e.By+" "+string(e.Result)]++
	}
	return counts
}

// TestAuditIsNotFlooded: what operators want in vain takes a bounded part of the audit log,
// of each of them apart.
func TestAuditIsNotFlooded(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for i := range 60 {
		ids = append(ids, fmt.Sprintf("node%02d", i))
	}
	w.declare(declared(ids...)...)
	order := func(by, id string, verb node.Event) {
		t.Helper()
		_, err := w.Operate(t.Context(), id, verb, deployer.Operator{Name: by}, "")
		var no *node.RefusedError
		if err != nil && !errors.As(err, &no) {
			t.Fatal(err)
		}
	}
	for range 20 {
		order("alice", "node00", node.EventHold)
		order("alice", "node01", node.EventRetry)
		w.Refused(t.Context(), deployer.Operator{Name: "vic"}, node.EventReset, "node00", "operator_role")
	}
	if got, want := w.audited(), map[string]int{"alice done": 1, "alice unchanged": 1, "alice refused": 1, "vic refused": 1}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the same again and again: %v", got)
	}
	for _, id := range ids {
		order("bob", id, node.EventRetry)
		w.Refused(t.Context(), deployer.Operator{Name: "vic"}, node.EventReset, id, "operator_role")
	}
	order("carol", "node00", node.EventHold)
	if got := w.audited(); got["bob refused"] != 50 || got["vic refused"] != 50 || got["carol unchanged"] != 1 {
		t.Errorf("of many nodes: %v", got)
	}
	w.clock.add(10 * time.Minute)
	order("bob", "node59", node.EventRetry)
	if got := w.audited(); got["bob refused"] != 51 {
		t.Errorf("ten minutes later: %v", got)
	}
}

// TestAuditIsWrittenLater: what could not be written counts as not written, and is once it
// is tried again.
func TestAuditIsWrittenLater(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	for _, broken := range []bool{true, false, false} {
		w.store.noAppends.Store(broken)
		w.Refused(t.Context(), deployer.Operator{Name: "vic"}, node.EventReset, "node01", "operator_role")
	}
	if got := w.audited()["vic refused"]; got != 1 {
		t.Errorf("%d entries", got)
	}
}

// TestOrderWithoutName: nobody orders without a name for the history and the audit log.
func TestOrderWithoutName(t *testing.T) {
	w := newWorld(t)
	w.declare(declared("node01")...)
	if _, err := w.Operate(t.Context(), "node01", node.EventHold, deployer.Operator{}, ""); err == nil || w.node("node01").Held != nil {
		t.Errorf("held: %v, %v", w.node("node01").Held, err)
	}
	if page, err := w.Audit(t.Context(), "", 10); err != nil || len(page.Events) != 0 {
		t.Errorf("%v %v", page.Events, err)
	}
}
