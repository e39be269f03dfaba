package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/store"
)

// TestFeedShares: watchers at one place share a reading, those at another wait for none of
// it, and who leaves waits no longer.
func TestFeedShares(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f feed
		var slow atomic.Int32
		away := func(ctx context.Context) (store.Page, error) {
			slow.Add(1)
			<-ctx.Done()
			return store.Page{}, ctx.Err()
		}
		began := time.Now()
		var all sync.WaitGroup
		ask := func(patience time.Duration, cursor, next string, took time.Duration, read func(context.Context) (store.Page, error)) {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				page, err := f.after(ctx, cursor, read)
				if page.Next != next || (err == nil) != (next != "") || time.Since(began) != took {
					t.Errorf("after %s: %q, %v in %s; want %q in %s", cursor, page.Next, err, time.Since(began), next, took)
				}
			})
		}
		for range 5 {
			ask(time.Minute, "A", "", feedRead, away)
		}
		ask(time.Second, "A", "", time.Second, away)
		synctest.Wait()
		ask(time.Minute, "B", "C", 0, func(context.Context) (store.Page, error) { return store.Page{Next: "C"}, nil })
		all.Wait()
		if slow.Load() != 1 {
			t.Errorf("%d readings after A", slow.Load())
		}
		began = time.Now()
		ask(time.Minute, "A", "D", 0, func(context.Context) (store.Page, error) { return store.Page{Next: "D"}, nil })
		all.Wait()
		ask(time.Minute, "A", "D", 0, away) // was read a moment ago
		all.Wait()
	})
}

// TestReadingPanics: a reading that panics is a failure of those who wait for it.
func TestReadingPanics(t *testing.T) {
	t.Parallel()
	_, err := beginReading(time.Minute, func(context.Context) (int, error) { panic("no such page") }).wait(t.Context())
	if err == nil {
		t.Error("no error")
	}
}

// noEventsStore reads events once it is let, or never.
type noEventsStore struct {
	store.Store
	gate  chan struct{}
	reads atomic.Int32
}

func (s *noEventsStore) Events(ctx context.Context, after string, limit int) (store.Page, error) {
	s.reads.Add(1)
	select {
	case <-s.gate:
		return s.Store.Events(ctx, after, limit)
	case <-ctx.Done():
		return store.Page{}, ctx.Err()
	}
}

// TestPagesStoreAway: while the store is slow, pages do not wait for each other, who leaves
// waits no longer, and those who stay have what happened before they asked.
func TestPagesStoreAway(t *testing.T) {
	t.Parallel()
	s, kept := bareServer(t)
	slow := &noEventsStore{Store: kept.Store, gate: make(chan struct{})}
	registry, err := deployer.New(t.Context(), deployer.Config{Store: slow, Logger: s.log})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if newest, err := s.ui.log.newest(t.Context(), registry); err != nil || newest.cursor == "" || len(newest.events) != 1 {
				t.Errorf("%+v, %v", newest, err)
			}
		})
	}
	within(t, func() bool { return slow.reads.Load() == 1 }, "nobody reads")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ui.log.newest(ctx, registry); !errors.Is(err, context.Canceled) {
		t.Errorf("one who left: %v", err)
	}
	close(slow.gate)
	all.Wait()
	if reads := slow.reads.Load(); reads > 2 {
		t.Errorf("%d readings", reads)
	}
}

// stepStore gives events one by one, and fails one reading.
type stepStore struct {
	store.Store
	after []string
}

func (s *stepStore) Events(ctx context.Context, after string, _ int) (store.Page, error) {
	if s.after = append(s.after, after); len(s.after) == 3 {
		return store.Page{}, errors.New("away")
	}
	return s.Store.Events(ctx, after, 1)
}

// TestEventLogGoesOn: after a reading that failed half-way the next one goes on from there.
func TestEventLogGoesOn(t *testing.T) {
	t.Parallel()
	s, kept := bareServer(t)
	for range 2 {
		if err := kept.Append(t.Context(), store.Event{At: time.Now(), Event: store.EventManifest}); err != nil {
			t.Fatal(err)
		}
	}
	steps := &stepStore{Store: kept.Store}
	registry, err := deployer.New(t.Context(), deployer.Config{Store: steps, Logger: s.log})
	if err != nil {
		t.Fatal(err)
	}
	if newest, err := s.ui.log.newest(t.Context(), registry); err == nil || newest.cursor != "" || newest.events != nil {
		t.Errorf("with a failure: %+v, %v", newest, err)
	}
	newest, err := s.ui.log.newest(t.Context(), registry)
	if err != nil || len(newest.events) != 3 || steps.after[3] != newest.events[1].Cursor {
		t.Errorf("%+v, %v, read after %q", newest, err, steps.after)
	}
}
