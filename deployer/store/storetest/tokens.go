package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// FullToken is a token with a value in every field.
func FullToken(name string) node.Token {
	return node.Token{
		Name: name, Hash: "sha256:" + name, Node: "node01", Role: "worker", Expires: start.Add(time.Hour), Uses: 10, Used: 3,
		Created: start, CreatedBy: "alice", LastUsed: start.Add(time.Minute), LastNode: "node02",
	}
}

func tokens(t *testing.T, s store.Store) []node.Token {
	t.Helper()
	all, err := s.Tokens(t.Context())
	if err != nil {
		t.Fatalf("tokens: %v", err)
	}
	return all
}

func tokensAreKept(t *testing.T, s Opened) {
	made := store.Event{At: start, Event: store.EventTokenCreate, Token: "b", By: "alice", Result: store.ResultDone}
	if _, err := s.Token(t.Context(), "b"); !errors.Is(err, store.ErrNoToken) {
		t.Errorf("none there: %v", err)
	}
	if err := s.DeleteToken(t.Context(), "b", made); !errors.Is(err, store.ErrNoToken) {
		t.Errorf("revoked none: %v", err)
	}
	for _, name := range []string{"b", "a", "B"} {
		if err := s.PutToken(t.Context(), FullToken(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutToken(t.Context(), node.Token{Name: "b", Hash: "other"}, made); !errors.Is(err, store.ErrTokenExists) {
		t.Errorf("put twice: %v", err)
	}
	if page := audit(t, s); len(page.Events) != 0 {
		t.Errorf("what was not done is in the audit log: %+v", page.Events)
	}
	want := []node.Token{FullToken("B"), FullToken("a"), FullToken("b")}
	if got := tokens(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	gone := made
	gone.Event = store.EventTokenRevoke
	if err := s.DeleteToken(t.Context(), "a", gone); err != nil {
		t.Fatal(err)
	}
	if err := s.PutToken(t.Context(), FullToken("c"), made); err != nil {
		t.Fatal(err)
	}
	again := s.Reopen()
	if got := tokens(t, again); !reflect.DeepEqual(got, []node.Token{FullToken("B"), FullToken("b"), FullToken("c")}) {
		t.Errorf("opened again: %+v", got)
	}
	if got, err := again.Token(t.Context(), "b"); err != nil || got != FullToken("b") {
		t.Errorf("%+v, %v", got, err)
	}
	var done []string
	for _, e := range audit(t, again).Events {
		done = append(done, string(e.Event))
	}
	if !slices.Equal(done, []string{"token-revoke", "token-create"}) {
		t.Errorf("the audit log has %v", done)
	}
}

var errUsedUp = errors.New("used up")

// join lets a node join with the token, as often as that may be used.
func join(t *testing.T, s store.Store, id, token string) error {
	return s.Join(t.Context(), id, token, func(old node.Node, found bool, u node.Token) (node.Node, node.Token, error) {
		if u.Name == "" || u.Used >= u.Uses {
			return old, u, errUsedUp
		}
		if !found {
			old = node.New(id, start)
		}
		u.Used++
		old.Attempt++
		old.TokenHash = u.Hash
		return old, u, nil
	})
}

// tokensHaveALimit: however many join at once, with however many tokens, each token is
// used as often as it may be, and no use is without its node.
func tokensHaveALimit(t *testing.T, s Opened) {
	const many, uses, kinds = 120, 17, 3
	stores := []store.Store{s.Store}
	if s.Another != nil {
		stores = append(stores, s.Another())
	}
	for i := range kinds {
		if err := s.PutToken(t.Context(), node.Token{Name: fmt.Sprint("t", i), Hash: fmt.Sprint("h", i), Uses: uses}); err != nil {
			t.Fatal(err)
		}
	}
	atOnce(t, many, func(i int) error {
		id := fmt.Sprintf("node%03d", i)
		err := join(t, stores[i%len(stores)], id, fmt.Sprint("t", i%kinds))
		if errors.Is(err, errUsedUp) {
			return nil
		}
		return err
	})
	with := map[string]int{}
	for _, n := range list(t, s) {
		with[n.TokenHash] += n.Attempt
	}
	for i, u := range tokens(t, s) {
		if u.Used != uses || with[u.Hash] != uses {
			t.Errorf("token %d: used %d times by %d nodes, want %d", i, u.Used, with[u.Hash], uses)
		}
	}
}

func aJoinIsOneStep(t *testing.T, s Opened) {
	if err := join(t, s, "node01", "none"); !errors.Is(err, errUsedUp) {
		t.Errorf("a token that is not there: %v", err)
	}
	// What is not there stays so, whatever the change makes of it.
	err := s.Join(t.Context(), "node02", "none", func(node.Node, bool, node.Token) (node.Node, node.Token, error) {
		return Full("node02"), FullToken("none"), nil
	})
	if got := tokens(t, s); err != nil || len(got) != 0 {
		t.Errorf("%v, %+v", err, got)
	}
	if err := s.PutToken(t.Context(), FullToken("a")); err != nil {
		t.Fatal(err)
	}
	for _, result := range []error{errUsedUp, store.ErrUnchanged} {
		err := s.Join(t.Context(), "node01", "a", func(_ node.Node, _ bool, u node.Token) (node.Node, node.Token, error) {
			u.Used = 99
			return Full("node01"), u, result
		})
		if errors.Is(result, store.ErrUnchanged) != (err == nil) {
			t.Errorf("%v became %v", result, err)
		}
	}
	if got := tokens(t, s); len(list(t, s)) != 1 || got[0] != FullToken("a") {
		t.Errorf("a change that failed wrote %+v", got)
	}
	if err := s.DeleteToken(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := join(t, s, "node01", "a"); !errors.Is(err, errUsedUp) {
		t.Errorf("revoked: %v", err)
	}
}

func aCorruptToken(t *testing.T, s Opened) {
	for _, name := range []string{"a", "b"} {
		if err := s.PutToken(t.Context(), FullToken(name)); err != nil {
			t.Fatal(err)
		}
	}
	again, key := s.SpoilToken("a", `{"name":"b","hash":"x"}`)
	var corrupt *store.CorruptError
	if _, err := again.Token(t.Context(), "a"); !errors.As(err, &corrupt) || corrupt.Key != key {
		t.Errorf("%v, want the key %s", err, key)
	}
	if err := join(t, again, "node01", "a"); !errors.As(err, &corrupt) {
		t.Errorf("joined with it: %v", err)
	}
	all, err := again.Tokens(t.Context())
	if records, rest := store.Corrupt(err); len(records) != 1 || rest != nil || len(all) != 1 || all[0].Name != "b" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := errors.Join(again.DeleteToken(t.Context(), "a"), again.PutToken(t.Context(), FullToken("a"))); err != nil {
		t.Errorf("revoked and made anew: %v", err)
	}
}

func audit(t *testing.T, s store.Store) store.Page {
	t.Helper()
	page, err := s.Audit(t.Context(), "", 1000)
	if err != nil {
		t.Fatalf("audit: %v", err)
	}
	return page
}

// auditLog: what operators did is there in the step in which it was done, and beside it
// what came to nothing.
func auditLog(t *testing.T, s Opened) {
	err := s.Update(t.Context(), "node01", func(n node.Node, _ bool) (node.Node, error) {
		n = node.New("node01", start)
		n.History = []node.Transition{
			{At: start, From: node.Pending, To: node.Pending, Event: node.EventBooted, Reason: "a node's"},
			{At: start, From: node.Pending, To: node.Pending, Event: node.EventHold, Reason: "new disks", By: "alice", Remote: "192.0.2.1"},
		}
		return n, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := store.Event{At: start, Node: "node01", Event: node.EventReset, By: "bob", Result: store.ResultRefused, Code: "operator_role"}
	if err := s.AppendAudit(t.Context(), refused); err != nil {
		t.Fatal(err)
	}
	again := s.Reopen()
	page := audit(t, again)
	want := []store.Event{
		{At: start, Node: "node01", Event: node.EventHold, From: node.Pending, To: node.Pending, Reason: "new disks", By: "alice", Remote: "192.0.2.1", Result: store.ResultDone},
		refused,
	}
	for i := range page.Events {
		page.Events[i].Cursor = ""
	}
	if !reflect.DeepEqual(page.Events, want) {
		t.Errorf("the audit log has\n%+v, want\n%+v", page.Events, want)
	}
	events, err := again.Events(t.Context(), "", 10)
	if err != nil || len(events.Events) != 2 || events.Events[1].By != "alice" || events.Events[1].Result != "" {
		t.Errorf("events: %+v, %v", events.Events, err)
	}
	if _, err := again.Events(t.Context(), page.Next, 10); !errors.Is(err, store.ErrCursorGone) {
		t.Errorf("a cursor of the audit log is one of the events: %v", err)
	}
	var many []store.Event
	for range KeptEvents + 10 {
		if many = append(many, refused); len(many) == 50 {
			if err := again.AppendAudit(t.Context(), many...); err != nil {
				t.Fatal(err)
			}
			many = nil
		}
	}
	if err := again.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept := audit(t, again); len(kept.Events) > KeptEvents || len(kept.Events) == 0 {
		t.Errorf("%d entries are kept", len(kept.Events))
	}
	if _, err := again.Audit(t.Context(), page.Next, 1); err != nil && !errors.Is(err, store.ErrCursorGone) {
		t.Errorf("after the first ones: %v", err)
	}
}

// olderVersions: what an older deployer wrote is there, and has what has come since.
func olderVersions(t *testing.T, s Opened) {
	put(t, s, Full("node01"))
	if _, err := s.Version("99", false); err == nil || !strings.Contains(err.Error(), "run the deployer that wrote it") {
		t.Errorf("a newer version: %v", err)
	}
	for _, keep := range []bool{true, false} {
		old, err := s.Version("1", keep)
		if err != nil {
			t.Fatal(err)
		}
		if got := getFirst(t, old); !reflect.DeepEqual(got, Full("node01")) {
			t.Errorf("got %+v", got)
		}
		put(t, old, Full("node01"))
		if got := tokens(t, old); len(got) != 0 || len(audit(t, old).Events) != 0 {
			t.Errorf("tokens %+v", got)
		}
		want := map[bool]string{true: "1", false: store.SchemaVersion}[keep]
		if got := s.Schema(); got != want {
			t.Errorf("schema version %q, want %q", got, want)
		}
	}
	again := s.Reopen()
	if err := again.PutToken(t.Context(), FullToken("a")); err != nil || getFirst(t, again).ID != "node01" {
		t.Errorf("migrated: %v", err)
	}
}
