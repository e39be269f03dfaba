package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/centra/plasmacloud/bgp/metrics"
)

const (
	// maxFollowers leaves most of the connections to who gives orders.
	maxFollowers = 4
	followPage   = 100
	// heartbeat is how often a stream without events has a line, which is empty.
	heartbeat = 10 * time.Second
	// maxSilence is how long a client waits for one.
	maxSilence = 3 * heartbeat
	maxLine    = 64 << 10
)

// events answers with a list; with follow=true with a line of JSON for each event, those
// that are kept and those to come, until the client goes.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q, err := metrics.ParseEventQuery(r, "follow")
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	follow := false
	if text := r.URL.Query().Get("follow"); text != "" {
		if follow, err = strconv.ParseBool(text); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Errorf("follow: %.60q; want true or false", text))
			return
		}
	}
	if follow {
		q.Limit = followPage
	}
	list, status, err := q.Ask(s.announcer.Events())
	switch {
	case err != nil:
		refuse(w, status, err)
	case !follow:
		answer(w, http.StatusOK, list)
	default:
		select {
		case s.followers <- struct{}{}:
			defer func() { <-s.followers }()
			s.follow(w, r, q, list)
		default:
			refuse(w, http.StatusServiceUnavailable, fmt.Errorf("%d others follow the events already; end one of them", maxFollowers))
		}
	}
}

// follow writes list, and what comes after it. There is no queue: what is kept of the
// events is it. A client that is slow to read has its own cursor; one that is so slow that
// what it has not read is not kept any more is told so, and cut off. One that reads nothing
// is cut off after timeout.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, q metrics.EventQuery, list metrics.EventList) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Time{}) // one that passes would look like a client that left
	w.Header().Set("Content-Type", "application/x-ndjson")
	var lines bytes.Buffer
	encode := json.NewEncoder(&lines)
	send := func() bool {
		_ = conn.SetWriteDeadline(time.Now().Add(timeout))
		_, err := w.Write(lines.Bytes())
		lines.Reset()
		return err == nil && conn.Flush() == nil
	}
	silence := time.NewTicker(s.heartbeat)
	defer silence.Stop()
	lines.WriteByte('\n') // so that the header goes out at once
	for {
		for _, e := range list.Events {
			_ = encode.Encode(e)
		}
		if lines.Len() > 0 && !send() {
			return
		}
		q.After = list.Next
		news := s.announcer.Events().News() // before the question, so that nothing is missed
		var err error
		if list, _, err = q.Ask(s.announcer.Events()); err != nil {
			_ = encode.Encode(Problem{Text: "you read too slowly: " + err.Error()})
			send()
			return
		}
		if len(list.Events) > 0 {
			continue
		}
		select {
		case <-news:
		case <-silence.C:
			lines.WriteByte('\n')
		case <-r.Context().Done():
			return
		}
	}
}

// Events asks for events behind a cursor; see metrics.EventQuery.
func (c *Client) Events(ctx context.Context, after string, vip netip.Addr) (list metrics.EventList, err error) {
	return list, c.ask(ctx, http.MethodGet, eventsPath(after, vip, false), nil, &list)
}

func eventsPath(after string, vip netip.Addr, follow bool) string {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if vip.IsValid() {
		q.Set("vip", vip.String())
	}
	if follow {
		q.Set("follow", "true")
	}
	return "/v1/events?" + q.Encode()
}

// Follow gives each the events behind a cursor, and those to come, until ctx ends or each
// returns an error. It goes on over restarts of the announcer; that nobody listens is an
// error only at the beginning. What the announcer refuses is one at any time.
func (c *Client) Follow(ctx context.Context, after string, vip netip.Addr, each func(metrics.Event) error) error {
	endless := *c.http
	endless.Timeout = 0
	for began := false; ; {
		said, err := c.stream(ctx, &endless, &after, vip, each)
		began = began || said
		var stop *stopError
		var refused *Problem
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &stop):
			return stop.err
		case errors.As(err, &refused), !began:
			return err
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// retry is the pause before a stream that broke off is taken up again.
const retry = 500 * time.Millisecond

// stopError is an error of the caller's own function.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// stream reads one stream, and moves the cursor along. said tells whether there was one.
func (c *Client) stream(ctx context.Context, client *http.Client, cursor *string, vip netip.Addr, each func(metrics.Event) error) (said bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxSilence, func() { cancel(fmt.Errorf("nothing came for %s", maxSilence)) })
	defer silence.Stop()
	response, err := c.open(ctx, client, http.MethodGet, eventsPath(*cursor, vip, true), nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	return true, readEvents(response.Body, func(e metrics.Event) error {
		silence.Reset(maxSilence)
		if e == (metrics.Event{}) {
			return nil
		}
		if err := each(e); err != nil {
			return &stopError{err}
		}
		*cursor = e.Cursor
		return nil
	})
}

// readEvents calls each for every line; for an empty one, which is a sign of life, with
// the zero Event. A line with an error is that error, a *Problem.
func readEvents(r io.Reader, each func(metrics.Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var line struct {
			metrics.Event
			Problem
		}
		if text := bytes.TrimSpace(lines.Bytes()); len(text) > 0 {
			if err := json.Unmarshal(text, &line); err != nil {
				return &Problem{Text: "read an event: " + err.Error()}
			}
			if line.Text != "" {
				return &line.Problem
			}
		}
		if err := each(line.Event); err != nil {
			return err
		}
	}
	return lines.Err()
}
