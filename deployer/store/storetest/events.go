package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/store"
)

// KeptEvents is how many events the stores under test keep.
const KeptEvents = 1000

// happens adds a line to the node's history.
func happens(t *testing.T, s store.Store, id string, event node.Event, reason string) {
	t.Helper()
	err := s.Update(t.Context(), id, func(n node.Node, found bool) (node.Node, error) {
		return line(n, found, id, event, reason), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func line(n node.Node, found bool, id string, event node.Event, reason string) node.Node {
	if !found {
		n = node.New(id, start)
	}
	t := node.Transition{At: start, From: n.State, To: n.State, Event: event, Reason: reason}
	n.History = append(n.History, t)
	n.History = n.History[max(0, len(n.History)-node.MaxHistory):]
	return n
}

// events are the reasons of those after the cursor, and the cursor behind them.
func events(t *testing.T, s store.Store, after string, limit int) (reasons []string, page store.Page) {
	t.Helper()
	page, err := s.Events(t.Context(), after, limit)
	if err != nil {
		t.Fatalf("events after %q: %v", after, err)
	}
	for _, e := range page.Events {
		reasons = append(reasons, e.Reason)
	}
	return reasons, page
}

func eventsOfChanges(t *testing.T, s Opened) {
	none, page := events(t, s, "", 10)
	if len(none) > 0 || page.Next == "" || page.More {
		t.Errorf("an empty store: %+v", page)
	}
	before := page.Next
	happens(t, s, "node01", node.EventBooted, "first")
	happens(t, s, "node01", node.EventDeclared, "the manifest has it")
	happens(t, s, "node02", node.EventReset, "second")
	put(t, s, node.New("node03", start)) // no line
	failed := errors.New("no")
	for _, err := range []error{failed, store.ErrUnchanged} {
		_ = s.Update(t.Context(), "node01", func(n node.Node, found bool) (node.Node, error) {
			return line(n, found, "node01", node.EventReady, "did not happen"), err
		})
	}
	refused := store.Event{At: start, Node: "node09", Event: store.EventRefused, Code: "unknown_node", Reason: "third"}
	manifest := store.Event{At: start, Event: store.EventManifest, Reason: "fourth"}
	if err := s.Append(t.Context(), refused, manifest); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context()); err != nil {
		t.Errorf("nothing appended: %v", err)
	}
	for i := range node.MaxHistory + 2 { // the history drops its oldest lines
		happens(t, s, "node02", node.EventBooted, fmt.Sprintf("later %d", i))
	}
	restored := Full("node04")
	restored.History = []node.Transition{
		{At: start, From: node.Pending, To: node.Pending, Event: node.EventBooted, Reason: "long ago"},
		{At: start.Add(time.Hour), From: node.Pending, To: node.Active, Event: node.EventReady, Reason: "last"},
	}
	put(t, s, restored)

	want := []string{"first", "second", "third", "fourth"}
	for i := range node.MaxHistory + 2 {
		want = append(want, fmt.Sprintf("later %d", i))
	}
	want = append(want, "last")
	all, page := events(t, s, "", 100)
	if !reflect.DeepEqual(all, want) || page.More {
		t.Errorf("got %q, more %v; want %q", all, page.More, want)
	}
	if since, _ := events(t, s, before, 100); !reflect.DeepEqual(since, want) {
		t.Errorf("after the cursor of an empty store: %q", since)
	}
	first := store.Event{Cursor: page.Events[0].Cursor, At: start, Node: "node01", Event: node.EventBooted, From: node.Pending, To: node.Pending, Reason: "first"}
	refused.Cursor, manifest.Cursor = page.Events[2].Cursor, page.Events[3].Cursor
	for i, e := range map[int]store.Event{0: first, 2: refused, 3: manifest} {
		if !reflect.DeepEqual(page.Events[i], e) {
			t.Errorf("got %+v, want %+v", page.Events[i], e)
		}
	}

	again := s.Reopen() // each cursor is good also then
	for i, e := range page.Events {
		rest, next := events(t, again, e.Cursor, 100)
		if len(rest) != len(want)-i-1 || len(rest) > 0 && rest[0] != want[i+1] || next.Next != page.Next {
			t.Errorf("after %q: %q, and next is %s", e.Reason, rest, next.Next)
		}
	}
	var paged []string
	for after, more := "", true; more; {
		part, p := events(t, again, after, 3)
		if len(part) > 3 {
			t.Errorf("%d where 3 were asked for", len(part))
		}
		paged = append(paged, part...)
		after, more = p.Next, p.More
	}
	if !reflect.DeepEqual(paged, want) {
		t.Errorf("in pages: %q", paged)
	}
}

// eventsAreFollowed: who goes on from the cursor while many write misses nothing,
// gets nothing twice, and has the events of a node in their order.
func eventsAreFollowed(t *testing.T, s Opened) { Follow(t, s, s) }

// Follow is eventsAreFollowed with several stores that share what they keep.
func Follow(t *testing.T, stores ...store.Store) {
	const writers, times = 20, 20
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		next := map[string]int{}
		after := ""
		for read := 0; read < writers*times && ctx.Err() == nil; {
			page, err := stores[0].Events(ctx, after, 7)
			if err != nil {
				t.Errorf("follow: %v", err)
				return
			}
			for _, e := range page.Events {
				if e.Reason != fmt.Sprint(next[e.Node]) {
					t.Errorf("%s: got %q, want %d", e.Node, e.Reason, next[e.Node])
				}
				next[e.Node]++
			}
			read += len(page.Events)
			after = page.Next
		}
		if page, err := stores[0].Events(ctx, after, 7); err != nil || len(page.Events) > 0 {
			t.Errorf("at the end there is more: %+v, %v", page, err)
		}
	}()
	atOnce(t, writers, func(i int) error {
		for turn := range times {
			id := fmt.Sprintf("follow%02d", i)
			s := stores[(i+turn)%len(stores)]
			err := s.Update(ctx, id, func(n node.Node, found bool) (node.Node, error) {
				return line(n, found, id, node.EventBooted, fmt.Sprint(turn)), nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	<-done
	if ctx.Err() != nil {
		t.Error("not all of it came")
	}
}

func oldEventsAreDropped(t *testing.T, s Opened) {
	_, empty := events(t, s, "", 1)
	const more = 7
	var batch []store.Event
	var second string
	for i := range KeptEvents + more {
		batch = append(batch, store.Event{At: start, Event: store.EventManifest, Reason: fmt.Sprint(i)})
		if len(batch) == 50 || i < 3 || i == KeptEvents+more-1 {
			if err := s.Append(t.Context(), batch...); err != nil {
				t.Fatal(err)
			}
			batch = nil
		}
		if i == 1 {
			_, page := events(t, s, "", 10)
			second = page.Next
		}
	}
	if err := s.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, after := range []string{empty.Next, second} {
		if _, err := s.Events(t.Context(), after, 1); !errors.Is(err, store.ErrCursorGone) {
			t.Errorf("after %s, which was dropped: %v", after, err)
		}
	}
	kept, page := events(t, s, "", 2*KeptEvents)
	last := KeptEvents + more - 1
	if len(kept) > KeptEvents || len(kept) < KeptEvents-50 || kept[len(kept)-1] != fmt.Sprint(last) || kept[0] != fmt.Sprint(last-len(kept)+1) {
		t.Errorf("%d are kept, from %s to %s", len(kept), kept[0], kept[len(kept)-1])
	}
	if rest, _ := events(t, s, page.Events[0].Cursor, 2*KeptEvents); len(rest) != len(kept)-1 {
		t.Errorf("after the oldest that is kept there are %d", len(rest))
	}
	if err := s.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, _ := events(t, s, "", 2*KeptEvents); !reflect.DeepEqual(again, kept) {
		t.Errorf("trimmed again there are %d of %d", len(again), len(kept))
	}
}

func badCursors(t *testing.T, s Opened) {
	happens(t, s, "node01", node.EventBooted, "first")
	_, page := events(t, s, "", 1)
	epoch, numbers, _ := strings.Cut(page.Next, ".")
	for cursor, want := range map[string]error{
		"x": store.ErrBadCursor, epoch: store.ErrBadCursor, epoch + ".-1": store.ErrBadCursor, epoch + ".x": store.ErrBadCursor,
		epoch + ".99999999999999999999": store.ErrBadCursor, strings.Repeat("1.", 100): store.ErrBadCursor,
		"another." + numbers: store.ErrCursorGone, epoch + ".1.2.3": store.ErrCursorGone,
		strings.Replace(page.Next, ".", ".99999", 1): store.ErrCursorGone, // of a store that went further
	} {
		if _, err := s.Events(t.Context(), cursor, 1); !errors.Is(err, want) {
			t.Errorf("after %q: %v, want %v", cursor, err, want)
		}
	}
}
