package server

import (
	"bytes"
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
const (
	streamPage = 100
	streamPoll = 500 * time.Millisecond
	streamLife = 15 * time.Minute // then it comes again, and shows its token again
)

// events answers with a list, or a stream to those who accept that.
func (s *server) events(_ http.ResponseWriter, r *http.Request) answer {
	after, limit, problem := eventQuery(r)
	if problem != nil {
		return refused(*problem)
	}
	stream := r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), api.EventStreamType)
	if stream {
		limit = streamPage
	}
	return s.turnstile(r, func() answer {
		page, err := s.registry.Events(r.Context(), after, limit)
		switch {
		case err != nil:
			return s.noEvents(r, err)
		case !stream:
			return answer{status: http.StatusOK, body: api.EventList{Events: wireEvents(page), Next: page.Next, More: page.More}}
		case !s.watch():
			return busy()
		default:
			return answer{status: http.StatusOK, stream: func(w http.ResponseWriter) {
				defer s.unwatch()
				s.stream(w, r, page)
			}}
		}
	})
}

func eventQuery(r *http.Request) (after string, limit int, problem *api.Problem) {
	limit = api.MaxEvents
	for key, values := range r.URL.Query() {
		value := values[0]
		switch {
		case len(values) > 1:
			return "", 0, badQuery(key, "there twice")
		case key == "after":
			after = value
		case key == "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > api.MaxEvents {
				return "", 0, badQuery(key, fmt.Sprintf("want 1 to %d", api.MaxEvents))
			}
			limit = n
		default:
			return "", 0, badQuery(key, "unknown; known are after, limit")
		}
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" { // of a browser that comes again
		after = last
	}
	return after, limit, nil
}

func badQuery(key, detail string) *api.Problem {
	return &api.Problem{
		Status: http.StatusBadRequest, Code: api.CodeBadRequest, Title: "The query breaks a rule",
		Field: clean(key), Detail: detail,
	}
}

func (s *server) noEvents(r *http.Request, err error) answer {
	switch {
	case errors.Is(err, store.ErrBadCursor):
		return refused(*badQuery("after", "not a cursor; take it from an event, or from next of a list"))
	case errors.Is(err, store.ErrCursorGone):
		return refused(api.Problem{
			Status: http.StatusGone, Code: api.CodeCursorGone, Title: "The cursor is too old",
			Detail: "some of the events after it are not kept any more; read " + api.PathNodes + " to know what is now, and begin anew without after",
		})
	default:
		return s.fail(r, err)
	}
}

// watch takes a place among the watchers, and says whether there was one.
func (s *server) watch() bool {
	select {
	case s.watchers <- struct{}{}:
		s.cfg.Metrics.Watchers(len(s.watchers))
		return true
	default:
		return false
	}
}

func (s *server) unwatch() {
	<-s.watchers
	s.cfg.Metrics.Watchers(len(s.watchers))
}

// stream writes server-sent events, page and what comes after it, until the peer goes
// or is too slow, or it has lasted long enough.
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
	end := time.NewTimer(streamLife)
	defer end.Stop()
	silence := time.NewTicker(s.cfg.Heartbeat)
	defer silence.Stop()
	poll := time.NewTicker(streamPoll)
	defer poll.Stop()
	for {
		for _, e := range wireEvents(page) {
			fmt.Fprintf(&text, "id: %s\ndata: %s\n", e.Cursor, encode(e)) // encode ends the line
		}
		if text.Len() > 0 && !send() {
			return
		}
		if !page.More {
			select {
			case <-poll.C:
			case <-silence.C:
				text.WriteString(": heartbeat\n\n")
			case <-end.C:
				return
			case <-r.Context().Done():
				return
			case <-s.cfg.Stop:
				return
			}
		}
		next, err := s.feed.after(page.Next, func(ctx context.Context) (store.Page, error) {
			return s.registry.Events(ctx, page.Next, streamPage)
		})
		if err != nil {
			if a := s.noEvents(r, err); a.status != 0 {
				fmt.Fprintf(&text, "event: problem\ndata: %s\n", encode(a.body))
				send()
			}
			return
		}
		page = next
	}
}

// feed lets the watchers that are at the same place, which is most of them, share what
// is read from the store.
type feed struct {
	mu     sync.Mutex
	cursor string
	at     time.Time
	page   store.Page
	err    error
}

func (f *feed) after(cursor string, read func(context.Context) (store.Page, error)) (store.Page, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cursor != cursor || time.Since(f.at) >= streamPoll/2 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // whoever leaves meanwhile
		defer cancel()
		f.page, f.err = read(ctx)
		f.cursor, f.at = cursor, time.Now()
	}
	return f.page, f.err
}

func wireEvents(page store.Page) []api.Event {
	events := make([]api.Event, len(page.Events))
	for i, e := range page.Events {
		events[i] = api.Event{Cursor: e.Cursor, At: e.At, NodeID: e.Node, VIP: e.VIP, Event: e.Event, From: e.From, To: e.To, Code: e.Code, Reason: e.Reason, By: e.By}
	}
	return events
}
