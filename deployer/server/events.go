package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/store"
)

// A watcher has no queue: the store is it. Each has a cursor, reads a page behind it,
// writes that, and only then reads the next. One that is slow to read is cut off by
// WriteTimeout and goes on from its cursor when it comes again.
const streamPage = 100

// events answers with a list, or a stream to those who accept that.
func (s *server) events(_ http.ResponseWriter, r *http.Request) answer {
	after, limit, problem := listQuery(r)
	if problem != nil {
		return refused(*problem)
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" { // of a browser that comes again
		after = last
	}
	if r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Accept"), api.EventStreamType) {
		return s.eventList(r, after, limit)
	}
	page, unwatch, a := s.watchEvents(r, after)
	if a.status == http.StatusOK {
		a.stream = func(w http.ResponseWriter) {
			defer unwatch()
			s.stream(w, r, page)
		}
	}
	return a
}

func (s *server) eventList(r *http.Request, after string, limit int) answer {
	return s.turnstile(r, func() answer {
		page, err := s.registry.Events(r.Context(), after, cmp.Or(limit, api.MaxList))
		if err != nil {
			return s.noEvents(r, err)
		}
		return answer{status: http.StatusOK, body: api.EventList{Events: wireEvents(page), Next: page.Next, More: page.More}}
	})
}

// watchEvents begins a stream of events: with the first page of them, and a place among
// the watchers, to be left by unwatch, where the status is 200.
func (s *server) watchEvents(r *http.Request, after string) (page store.Page, unwatch func(), a answer) {
	a = s.turnstile(r, func() answer {
		var err error
		if page, err = s.registry.Events(r.Context(), after, streamPage); err != nil {
			return s.noEvents(r, err)
		}
		unwatch, a = s.watch(r)
		return a
	})
	return page, unwatch, a
}

// listQuery reads what a list takes: where to begin, and how many. limit is 0 where it
// is left out.
func listQuery(r *http.Request) (after string, limit int, problem *api.Problem) {
	for key, values := range r.URL.Query() {
		value := values[0]
		switch {
		case len(values) > 1:
			return "", 0, badQuery(key, "there twice")
		case key == "after":
			after = value
		case key == "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > api.MaxList {
				return "", 0, badLimit()
			}
			limit = n
		default:
			return "", 0, badQuery(key, "unknown; known are after, limit")
		}
	}
	return after, limit, nil
}

func badLimit() *api.Problem { return badQuery("limit", fmt.Sprintf("want 1 to %d", api.MaxList)) }

func badQuery(key, detail string) *api.Problem {
	return &api.Problem{
		Status: http.StatusBadRequest, Code: api.CodeBadRequest, Title: "The query breaks a rule",
		Field: clean(key), Detail: clean(key) + ": " + detail,
	}
}

func (s *server) noEvents(r *http.Request, err error) answer {
	return s.noPage(r, err, "events", "read "+api.PathNodes+" to know what is now, and begin anew without after")
}

// noPage is why there is no page of what is kept for a while, with the mend of a cursor
// that is too old.
func (s *server) noPage(r *http.Request, err error, what, mend string) answer {
	switch {
	case errors.Is(err, store.ErrBadCursor):
		return refused(*badQuery("after", "not a cursor; take it from an event, or from next of a list"))
	case errors.Is(err, store.ErrCursorGone):
		return refused(api.Problem{
			Status: http.StatusGone, Code: api.CodeCursorGone, Title: "The cursor is too old",
			Detail: "some of the " + what + " after it are not kept any more; " + mend,
		})
	default:
		return s.fail(r, err)
	}
}

// watch takes a place among the watchers, where the answer has status 200.
func (s *server) watch(r *http.Request) (unwatch func(), a answer) {
	if !s.mayWatch(r) {
		return nil, s.tooManyRequests(r)
	}
	leave, ok := s.watchers.take(r)
	if !ok {
		return nil, busy()
	}
	s.cfg.Metrics.Watchers(len(s.watchers.all))
	return func() {
		leave()
		s.cfg.Metrics.Watchers(len(s.watchers.all))
	}, answer{status: http.StatusOK}
}

// stream writes server-sent events.
func (s *server) stream(w http.ResponseWriter, r *http.Request, page store.Page) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Time{}) // one that passes would look like a peer that left
	var text bytes.Buffer
	send := func() bool {
		_ = conn.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
		_, err := w.Write(text.Bytes())
		text.Reset()
		return err == nil && conn.Flush() == nil
	}
	text.WriteString(": events\n\n") // so that the header goes out at once
	a := s.follow(r, page, func(events []api.Event, _ string) bool {
		for _, e := range events {
			fmt.Fprintf(&text, "id: %s\ndata: %s\n", e.Cursor, encode(e)) // encode ends the line
		}
		if text.Len() == 0 {
			text.WriteString(": heartbeat\n\n")
		}
		return send()
	})
	if a.status != 0 {
		fmt.Fprintf(&text, "event: problem\ndata: %s\n", encode(a.body))
		send()
	}
}

// follow gives send the events of page at once, then those that come after it, and none
// for a heartbeat, until send says that the peer is gone or too slow, or it has lasted
// long enough. What it answers with is the problem that ended it, if any.
func (s *server) follow(r *http.Request, page store.Page, send func(events []api.Event, cursor string) bool) answer {
	pace := s.newPace(r.Context())
	defer pace.stop()
	for first := true; ; first = false {
		if (first || len(page.Events) > 0) && !send(wireEvents(page), page.Next) {
			return answer{}
		}
		if !page.More && !pace.wait(func() bool { return send(nil, page.Next) }) {
			return answer{}
		}
		next, err := s.feed.after(r.Context(), page.Next, func(ctx context.Context) (store.Page, error) {
			return s.registry.Events(ctx, page.Next, streamPage)
		})
		if err != nil {
			return s.noEvents(r, err)
		}
		page = next
	}
}

// feed lets the watchers that are at the same place, which is most of them, share what
// is read from the store.
type feed struct {
	mu      sync.Mutex // never held over a read
	cursor  string
	reading *reading[store.Page] // of what is after cursor
}

const feedRead = 10 * time.Second // of a reading

// after is what is after cursor: as it was read for others a moment ago, or as it is
// being read for them, else as read finds it. It waits for that no longer than ctx.
func (f *feed) after(ctx context.Context, cursor string, read func(context.Context) (store.Page, error)) (store.Page, error) {
	f.mu.Lock()
	if f.reading == nil || f.cursor != cursor || f.reading.over() && time.Since(f.reading.began) >= streamPoll/2 {
		f.cursor, f.reading = cursor, beginReading(feedRead, read)
	}
	reading := f.reading
	f.mu.Unlock()
	return reading.wait(ctx)
}

func wireEvents(page store.Page) []api.Event {
	events := make([]api.Event, len(page.Events))
	for i, e := range page.Events {
		events[i] = api.Event{Cursor: e.Cursor, At: e.At, NodeID: e.Node, VIP: e.VIP, Event: e.Event, From: e.From, To: e.To, Code: e.Code, Reason: e.Reason, By: e.By}
	}
	return events
}
