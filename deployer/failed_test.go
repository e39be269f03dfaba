package deployer

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// uncommitted makes changes that are never committed, as long as fails is set.
type uncommitted struct {
	store.Store
	fails bool
}

var errNotCommitted = errors.New("input/output error")

func (s *uncommitted) Update(ctx context.Context, id string, change store.Change) error {
	return s.Store.Update(ctx, id, func(old node.Node, found bool) (node.Node, error) {
		n, err := change(old, found)
		if s.fails {
			return old, errNotCommitted
		}
		return n, err
	})
}

func (s *uncommitted) Join(ctx context.Context, id, token string, change store.JoinChange) error {
	return s.Store.Join(ctx, id, token, func(old node.Node, found bool, t node.Token) (node.Node, node.Token, error) {
		n, after, err := change(old, found, t)
		if s.fails {
			return old, t, errNotCommitted
		}
		return n, after, err
	})
}

// TestNothingOfWhatFailed: of a change that is not committed nothing is to be seen: not in
// the log, nor among the events, in the audit log, of a token's uses or in the answer, and
// nobody looks at the VIPs for it. Once more, and committed, all of it is.
func TestNothingOfWhatFailed(t *testing.T) {
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	s := &uncommitted{Store: file}
	var log bytes.Buffer
	r, err := New(t.Context(), Config{Store: s, Logger: slog.New(slog.NewTextHandler(&log, nil)), AllowUnknownNodes: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Declare(t.Context(), []node.Declaration{{ID: "node01", Role: "worker"}, {ID: "node02", Role: "worker"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.DeclareVIPs([]VIPDeclaration{{VIP: "203.0.113.10/32", Nodes: []string{"node01"}}}); err != nil {
		t.Fatal(err)
	}
	alice := Operator{Name: "alice"}
	_, token, err := r.CreateToken(t.Context(), node.Token{Name: "t", Uses: 9}, alice)
	if err != nil {
		t.Fatal(err)
	}
	ready := node.Report{Phase: node.PhaseReady, MachineID: "aaaaaaaa-0000-4000-8000-000000000001", VIPs: []string{"203.0.113.10/32"}}
	joins := ready
	joins.MachineID = "bbbbbbbb-0000-4000-8000-000000000002"
	joins.Credentials = &node.Credentials{SecretHash: node.HashSecret("secret"), Offer: node.Offer{Name: "t", Hash: node.HashSecret(token)}}
	type seen struct {
		log, events, audit, used, undeclared int
		stirred                              bool
		node01, node02                       node.State
	}
	look := func() (all seen) {
		t.Helper()
		events, err := r.Events(t.Context(), "", 1000)
		audit, auditErr := r.Audit(t.Context(), "", 1000)
		kept, tokenErr := file.Token(t.Context(), "t")
		one, oneErr := r.Node(t.Context(), "node01")
		two, twoErr := r.Node(t.Context(), "node02")
		if err := errors.Join(err, auditErr, tokenErr, oneErr, twoErr); err != nil {
			t.Fatal(err)
		}
		return seen{log.Len(), len(events.Events), len(audit.Events), kept.Used, len(r.unknown), r.vips.stirred, one.State, two.State}
	}
	all := []func() error{
		func() error { _, err := r.PhoneHome(t.Context(), "node01", ready); return err },
		func() error { _, err := r.PhoneHome(t.Context(), "node02", joins); return err }, // two lines: with which token, and ready
		func() error { _, err := r.PhoneHome(t.Context(), "stranger", ready); return err },
		func() error { _, err := r.Operate(t.Context(), "node01", node.EventHold, alice, ""); return err },
	}
	r.vips.stirred = false
	before := look()
	s.fails = true
	for i, change := range all {
		if err := change(); !errors.Is(err, errNotCommitted) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if after := look(); after != before {
		t.Errorf("after changes that were not committed\n%+v, before\n%+v\n%s", after, before, &log)
	}
	if err := r.Health(t.Context()); err == nil {
		t.Error("health says nothing of it")
	}
	s.fails = false
	for i, change := range all {
		if err := change(); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	after := look()
	want := seen{after.log, before.events + 5, before.audit + 1, 1, 1, true, node.Active, node.Active}
	if after != want || after.log == before.log {
		t.Errorf("after changes that were committed\n%+v, want\n%+v", after, want)
	}
}
