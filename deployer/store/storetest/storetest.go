// Package storetest is what every store.Store must do, as one suite of tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Opened is a store under test.
type Opened struct {
	store.Store

	// Reopen closes the store and gives its content again, as another process would see it.
	Reopen func() store.Store
	// Spoil is Reopen with other bytes for the record of a node, and key as the store's
	// word for where they are.
	Spoil func(id, value string) (s store.Store, key string)
	// SpoilToken is Spoil for a join token.
	SpoilToken func(name, value string) (s store.Store, key string)
	// Version is Reopen as if a deployer of that version of the schema had written the
	// store; keep leaves it so. Schema is the version that it says then.
	Version func(version string, keep bool) (store.Store, error)
	Schema  func() string
	// Another opens the same content again beside this store; nil where there can be but
	// one.
	Another func() store.Store
	// Kept are the bytes that Mend kept of a node, once the store is closed.
	Kept func(id string) []string
}

// Run tests the stores that open makes, each of which is empty.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opened)
	}{
		{"nothing there", nothingThere},
		{"written and read", writtenAndRead},
		{"list is in order", listIsInOrder},
		{"an error of the change writes nothing", changeFails},
		{"unchanged writes nothing", changeUnchanged},
		{"an ended context does nothing", endedContext},
		{"updates of one node do not interleave", noInterleaving},
		{"updates of many nodes at once", manyAtOnce},
		{"one bad change among many", oneBadAmongMany},
		{"seen moves last_seen", seen},
		{"seen and update at once", seenAndUpdate},
		{"list is of one moment", listIsOfOneMoment},
		{"seen after a reset", seenAfterReset},
		{"it is all there after opening again", openAgain},
		{"a corrupt record", corruptRecord},
		{"events of changes", eventsOfChanges},
		{"events are followed", eventsAreFollowed},
		{"old events are dropped", oldEventsAreDropped},
		{"cursors that are none", badCursors},
		{"tokens are kept", tokensAreKept},
		{"tokens have a limit", tokensHaveALimit},
		{"a join is one step", aJoinIsOneStep},
		{"a corrupt token", aCorruptToken},
		{"audit log", auditLog},
		{"backed up", backedUp},
		{"restored over events", restoredOverEvents},
		{"older versions", olderVersions},
		{"closed", closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, open(t))
		})
	}
}

// Full is a node with a value in every field.
func Full(id string) node.Node {
	return node.Node{
		ID: id, Declared: true, Role: "worker", IP: netip.MustParseAddr("2001:db8::11"), ConfigHash: "sha256:aa",
		State: node.Provisioning, Since: start, Deadline: start.Add(time.Hour), Attempt: 3, Provisioned: true,
		LastError: &node.Error{At: start, Phase: node.PhaseInstalling, Message: "no \"disk\"\nat all \u2028 \x00"},
		History:   []node.Transition{{At: start, From: node.Pending, To: node.Failed, Event: node.EventTick, Reason: "late"}},
		MachineID: "m1", BootID: "b1", Hostname: "host", ReportedIP: netip.MustParseAddr("10.0.0.1"), ReportedHash: "sha256:bb",
		SecretHash: "sha256:cc", Phase: node.PhaseBooted, Facts: map[string]string{"cpus": "2"}, VIPs: []string{"203.0.113.10/32"},
		LastSeen: start.Add(123 * time.Millisecond),
		Labels:   map[string]string{"rack": "a1"}, TokenHash: "sha256:dd", Acknowledged: start, Joined: start,
		Held:     &node.Mark{At: start, By: "alice", Reason: "new disks"},
		Approved: &node.Mark{At: start, By: "bob"}, Reinstall: &node.Mark{At: start},
	}
}

func put(t *testing.T, s store.Store, n node.Node) {
	t.Helper()
	if err := s.Update(t.Context(), n.ID, func(node.Node, bool) (node.Node, error) { return n, nil }); err != nil {
		t.Fatalf("put %s: %v", n.ID, err)
	}
}

func getFirst(t *testing.T, s store.Store) node.Node {
	t.Helper()
	n, err := s.Get(t.Context(), "node01")
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	return n
}

func list(t *testing.T, s store.Store) []node.Node {
	t.Helper()
	nodes, err := s.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return nodes
}

func nothingThere(t *testing.T, s Opened) {
	if _, err := s.Get(t.Context(), "node01"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get: %v, want ErrNotFound", err)
	}
	if nodes := list(t, s); len(nodes) != 0 {
		t.Errorf("list: %v", nodes)
	}
	if err := s.Seen(t.Context(), map[string]time.Time{"node01": start}); err != nil {
		t.Errorf("seen of an unknown node: %v", err)
	}
	err := s.Update(t.Context(), "node01", func(old node.Node, found bool) (node.Node, error) {
		if found || !reflect.DeepEqual(old, node.Node{}) {
			t.Errorf("the change got %+v, found %v", old, found)
		}
		return node.New("node01", start), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := getFirst(t, s); !n.LastSeen.IsZero() {
		t.Errorf("seen of a node before it was there counts: %s", n.LastSeen)
	}
}

func writtenAndRead(t *testing.T, s Opened) {
	want := Full("node01")
	put(t, s, want)
	if got := getFirst(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	err := s.Update(t.Context(), "node01", func(old node.Node, found bool) (node.Node, error) {
		if !found || !reflect.DeepEqual(old, want) {
			t.Errorf("the change got %+v, found %v", old, found)
		}
		old.Role = "control-plane"
		return old, nil
	})
	if err != nil || getFirst(t, s).Role != "control-plane" {
		t.Errorf("update: %v, %+v", err, getFirst(t, s))
	}
}

func listIsInOrder(t *testing.T, s Opened) {
	for _, id := range []string{"b", "node10", "a", "node2"} {
		put(t, s, Full(id))
	}
	var ids []string
	for _, n := range list(t, s) {
		ids = append(ids, n.ID)
		if !reflect.DeepEqual(n, Full(n.ID)) {
			t.Errorf("listed %+v", n)
		}
	}
	if want := []string{"a", "b", "node10", "node2"}; !slices.Equal(ids, want) {
		t.Errorf("listed %v, want %v", ids, want)
	}
}

func changeFails(t *testing.T, s Opened) {
	put(t, s, Full("node01"))
	refused := errors.New("refused")
	err := s.Update(t.Context(), "node01", func(old node.Node, _ bool) (node.Node, error) {
		old.Role = "other"
		return old, refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("update: %v, want the error of the change", err)
	}
	err = s.Update(t.Context(), "node02", func(node.Node, bool) (node.Node, error) { return Full("node02"), refused })
	if !errors.Is(err, refused) {
		t.Errorf("update: %v, want the error of the change", err)
	}
	if nodes := list(t, s); len(nodes) != 1 || !reflect.DeepEqual(nodes[0], Full("node01")) {
		t.Errorf("a failed change wrote: %+v", nodes)
	}
}

func changeUnchanged(t *testing.T, s Opened) {
	err := s.Update(t.Context(), "node01", func(node.Node, bool) (node.Node, error) {
		return Full("node01"), store.ErrUnchanged
	})
	if err != nil || len(list(t, s)) != 0 {
		t.Errorf("unchanged: %v, %d nodes", err, len(list(t, s)))
	}
}

func endedContext(t *testing.T, s Opened) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, "node01"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	err := s.Update(ctx, "node01", func(node.Node, bool) (node.Node, error) { return Full("node01"), nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("update: %v", err)
	}
	if err := s.Seen(ctx, map[string]time.Time{"node01": start}); !errors.Is(err, context.Canceled) {
		t.Errorf("seen: %v", err)
	}
	if nodes := list(t, s); len(nodes) != 0 {
		t.Errorf("written all the same: %v", nodes)
	}
}

func noInterleaving(t *testing.T, s Opened) {
	const writers, times = 16, 25
	n := node.New("node01", start)
	put(t, s, n)
	atOnce(t, writers, func(int) error {
		for range times {
			err := s.Update(t.Context(), "node01", func(old node.Node, _ bool) (node.Node, error) {
				old.Attempt++
				return old, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if got := getFirst(t, s).Attempt; got != writers*times {
		t.Errorf("%d of %d increments are there", got, writers*times)
	}
}

func manyAtOnce(t *testing.T, s Opened) {
	const many = 300
	atOnce(t, many, func(i int) error {
		id := fmt.Sprintf("node%03d", i)
		if err := s.Update(t.Context(), id, func(node.Node, bool) (node.Node, error) { return Full(id), nil }); err != nil {
			return err
		}
		_, err := s.Get(t.Context(), id)
		return err
	})
	if got := len(list(t, s)); got != many {
		t.Errorf("%d nodes, want %d", got, many)
	}
}

func oneBadAmongMany(t *testing.T, s Opened) {
	const many = 100
	refused := errors.New("refused")
	atOnce(t, many, func(i int) error {
		id := fmt.Sprintf("node%03d", i)
		err := s.Update(t.Context(), id, func(node.Node, bool) (node.Node, error) {
			if i%10 == 0 {
				return node.Node{}, refused
			}
			return Full(id), nil
		})
		if i%10 == 0 != errors.Is(err, refused) {
			return fmt.Errorf("%s: %w", id, err)
		}
		return nil
	})
	if got := len(list(t, s)); got != many-many/10 {
		t.Errorf("%d nodes, want %d", got, many-many/10)
	}
}

func seen(t *testing.T, s Opened) {
	n := Full("node01")
	put(t, s, n)
	put(t, s, Full("node02"))
	for _, step := range []struct{ heard, want time.Duration }{
		{time.Minute, time.Minute},
		{2 * time.Minute, 2 * time.Minute},
		{2*time.Minute - node.ClockSlack, 2 * time.Minute},
		{-time.Hour, -time.Hour}, // the clock was set back
		{time.Minute, time.Minute},
	} {
		if err := s.Seen(t.Context(), map[string]time.Time{"node01": start.Add(step.heard), "unknown": start}); err != nil {
			t.Fatal(err)
		}
		want := n
		want.LastSeen = start.Add(step.want)
		if got := getFirst(t, s); !reflect.DeepEqual(got, want) {
			t.Errorf("heard at %s: got\n%+v\nwant\n%+v", step.heard, got, want)
		}
		if nodes := list(t, s); len(nodes) != 2 || !reflect.DeepEqual(nodes[0], want) || !reflect.DeepEqual(nodes[1], Full("node02")) {
			t.Errorf("heard at %s: listed %+v", step.heard, nodes)
		}
	}
	n.LastSeen = start.Add(time.Hour)
	put(t, s, n)
	if got := getFirst(t, s).LastSeen; !got.Equal(n.LastSeen) {
		t.Errorf("an update with a later last_seen gives %s", got)
	}
	for _, back := range []time.Time{start, {}} {
		n.LastSeen = back
		put(t, s, n)
		if got := getFirst(t, s).LastSeen; !got.Equal(back) {
			t.Errorf("an update with last_seen %s gives %s", back, got)
		}
	}
}

func seenAndUpdate(t *testing.T, s Opened) {
	put(t, s, Full("node01"))
	const times = 20
	atOnce(t, 2, func(writer int) error {
		for i := range times {
			var err error
			if writer == 0 {
				err = s.Seen(t.Context(), map[string]time.Time{"node01": start.Add(time.Duration(i+1) * time.Minute)})
			} else {
				err = s.Update(t.Context(), "node01", func(old node.Node, _ bool) (node.Node, error) {
					old.Attempt++
					return old, nil
				})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	got := getFirst(t, s)
	if got.Attempt != Full("").Attempt+times || !got.LastSeen.Equal(start.Add(times*time.Minute)) {
		t.Errorf("attempt %d, last seen %s", got.Attempt, got.LastSeen)
	}
}

func openAgain(t *testing.T, s Opened) {
	put(t, s, Full("node01"))
	put(t, s, Full("node02"))
	if err := s.Seen(t.Context(), map[string]time.Time{"node02": start.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	want := list(t, s)
	if got := list(t, s.Reopen()); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func closed(t *testing.T, s Opened) {
	put(t, s, Full("node01"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), "node01")
	_, listErr := s.List(t.Context())
	_, eventsErr := s.Events(t.Context(), "", 1)
	for what, err := range map[string]error{
		"get": err, "list": listErr,
		"update": s.Update(t.Context(), "node01", func(n node.Node, _ bool) (node.Node, error) { return n, nil }),
		"seen":   s.Seen(t.Context(), map[string]time.Time{"node01": start}),
		"append": s.Append(t.Context(), store.Event{Event: store.EventManifest}),
		"trim":   s.Trim(t.Context()),
		"events": eventsErr,
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", what, err)
		}
	}
}

// listIsOfOneMoment: one node is written before another, again and again, and no list
// has the second without the first. There are more nodes than a page may have.
func listIsOfOneMoment(t *testing.T, s Opened) {
	const between = 1200
	atOnce(t, between, func(i int) error {
		id := fmt.Sprintf("b%04d", i)
		return s.Update(t.Context(), id, func(node.Node, bool) (node.Node, error) { return node.New(id, start), nil })
	})
	write := func(id string, attempt int) error {
		return s.Update(t.Context(), id, func(node.Node, bool) (node.Node, error) {
			n := node.New(id, start)
			n.Attempt = attempt
			return n, nil
		})
	}
	if err := errors.Join(write("a", 0), write("c", 0)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for attempt := 1; ctx.Err() == nil; attempt++ {
			if err := errors.Join(write("a", attempt), write("c", attempt)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 20 {
		nodes := list(t, s)
		if len(nodes) != between+2 {
			t.Errorf("%d nodes, want %d", len(nodes), between+2)
			break
		}
		if first, second := nodes[0].Attempt, nodes[between+1].Attempt; second > first || first > second+1 {
			t.Errorf("the first is at %d and the second, which is written after it, at %d", first, second)
		}
	}
	stop()
	all.Wait()
}

// seenAfterReset: a node that was reset has forgotten when it was heard, and what was
// heard before that is no news.
func seenAfterReset(t *testing.T, s Opened) {
	n := node.New("node01", start)
	put(t, s, n)
	for _, step := range []struct{ heard, want time.Time }{
		{start.Add(-time.Second), time.Time{}},
		{start.Add(time.Second), start.Add(time.Second)},
	} {
		if err := s.Seen(t.Context(), map[string]time.Time{"node01": step.heard}); err != nil {
			t.Fatal(err)
		}
		if got := getFirst(t, s).LastSeen; !got.Equal(step.want) {
			t.Errorf("heard at %s: last seen %s, want %s", step.heard, got, step.want)
		}
	}
}

func corruptRecord(t *testing.T, opened Opened) {
	put(t, opened, Full("node01"))
	put(t, opened, Full("node02"))
	values := map[string]string{
		"not JSON":      "{",
		"another id":    `{"id":"node03","state":"Active"}`,
		"another state": `{"id":"node02","state":"asleep"}`,
	}
	var s store.Store
	for name, value := range values {
		var key string
		s, key = opened.Spoil("node02", value)
		check := func(what string, err error) {
			t.Helper()
			var corrupt *store.CorruptError
			if !errors.As(err, &corrupt) || corrupt.ID != "node02" || corrupt.Key != key || !strings.Contains(err.Error(), key) {
				t.Errorf("%s, %s: %v, want a corrupt record %s", name, what, err, key)
			}
		}
		_, err := s.Get(t.Context(), "node02")
		check("get", err)
		check("update", s.Update(t.Context(), "node02", func(node.Node, bool) (node.Node, error) {
			t.Errorf("%s: the change of a corrupt record ran", name)
			return node.Node{}, nil
		}))
		if err := s.Seen(t.Context(), map[string]time.Time{"node02": start.Add(time.Hour)}); err != nil {
			t.Errorf("%s, seen: %v", name, err)
		}
		nodes, err := s.List(t.Context())
		check("list", err)
		if len(nodes) != 1 || nodes[0].ID != "node01" {
			t.Errorf("%s: listed %v, want the good one", name, nodes)
		}
		if records, rest := store.Corrupt(err); len(records) != 1 || records[0].ID != "node02" || rest != nil {
			t.Errorf("%s: taken apart: %v and %v", name, records, rest)
		}

		mended := Full("node02")
		mended.Role = "mended"
		for _, id := range []string{"node01", "node02", "node03"} { // only one of them is corrupt
			n := Full(id)
			n.Role = "mended"
			if err := s.Mend(t.Context(), n); err != nil {
				t.Errorf("%s: mend %s: %v", name, id, err)
			}
		}
		if nodes := list(t, s); !reflect.DeepEqual(nodes, []node.Node{Full("node01"), mended}) {
			t.Errorf("%s: mended: %+v", name, nodes)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	kept, want := opened.Kept("node02"), slices.Sorted(maps.Values(values))
	if slices.Sort(kept); !slices.Equal(kept, want) {
		t.Errorf("kept aside: %q, want %q", kept, want)
	}
}

// atOnce runs work n times at the same time.
func atOnce(t *testing.T, n int, work func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := work(i); err != nil {
				t.Errorf("worker %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}
