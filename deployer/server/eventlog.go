package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/server/page"
	"github.com/centra/plasmacloud/deployer/store"
)

// eventLog keeps the newest events, so that each page reads only what came since the
// last one.
type eventLog struct {
	mu      sync.Mutex // never held over a read
	last    newestEvents
	reading *reading[newestEvents]
}

// newestEvents are shared and do not change.
type newestEvents struct {
	cursor string        // behind the last one
	events []store.Event // oldest first, at most page.KeptEvents
}

const eventLogRead = 10 * time.Second // of a reading

// newest are the events as of when it was asked or later. It waits for them no longer than
// ctx; all who wait for a reading that fails share the failure.
func (l *eventLog) newest(ctx context.Context, r *deployer.Registry) (newestEvents, error) {
	asked := time.Now()
	for {
		reading := l.since(asked, r)
		got, err := reading.wait(ctx)
		if err != nil {
			return newestEvents{}, err
		}
		if !reading.began.Before(asked) { // or it began too early
			return got, nil
		}
	}
}

// since is a reading that began then or later, or the one that is under way.
func (l *eventLog) since(asked time.Time, r *deployer.Registry) *reading[newestEvents] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading == nil || l.reading.over() && l.reading.began.Before(asked) {
		last := l.last
		l.reading = beginReading(eventLogRead, func(ctx context.Context) (newestEvents, error) {
			got, err := last.andNewer(ctx, r)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.last = got
			return got, err
		})
	}
	return l.reading
}

// andNewer is n with what came since, or with an error as much of it as could be read, so
// that the next reading of a slow store comes further.
func (n newestEvents) andNewer(ctx context.Context, r *deployer.Registry) (newestEvents, error) {
	for {
		got, err := r.Events(ctx, n.cursor, 1000)
		if errors.Is(err, store.ErrCursorGone) && n.cursor != "" {
			n = newestEvents{}
			continue
		}
		if err != nil {
			return n, err
		}
		n.cursor = got.Next
		if len(got.Events) > 0 {
			all := make([]store.Event, 0, len(n.events)+len(got.Events))
			all = append(append(all, n.events...), got.Events...)
			n.events = all[max(0, len(all)-page.KeptEvents):]
		}
		if !got.More {
			return n, nil
		}
	}
}
