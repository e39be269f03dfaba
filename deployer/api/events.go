package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Events returns what happened after the cursor, oldest first; "" is from the oldest
// on that is kept. An *Error with CodeCursorGone says that some of it is not kept.
func (c *Client) Events(ctx context.Context, after string) (EventList, error) {
	var list EventList
	err := c.do(ctx, http.MethodGet, PathEvents, cursor(after), c.bearer(), nil, maxListBytes, &list)
	return list, err
}

const (
	maxSilence   = 45 * time.Second // a stream has a heartbeat every 15s
	maxEventLine = 64 << 10
	maxPause     = 30 * time.Second
)

// Follow gives each the events after the cursor, and those to come, until ctx ends or
// each returns an error. A stream that ends is taken up again where it was; that the
// deployer cannot be reached is an error only at the beginning. What the deployer
// refuses for good is one at any time.
func (c *Client) Follow(ctx context.Context, after string, each func(Event) error) error {
	pause, began := time.Duration(0), false
	for {
		said, err := c.stream(ctx, &after, each)
		began = began || said
		var answer *Error
		var stop *stopError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &stop):
			return stop.err
		case errors.As(err, &answer) && !answer.Temporary(), !began:
			return err
		}
		if pause = min(2*pause+500*time.Millisecond, maxPause); said {
			pause = 500 * time.Millisecond
		}
		if answer != nil {
			pause = max(pause, min(answer.RetryAfter, maxPause))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stopError is an error of the caller's own function.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// stream reads one stream and moves the cursor at along. said tells whether the deployer
// accepted it.
func (c *Client) stream(ctx context.Context, at *string, each func(Event) error) (said bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxSilence, func() { cancel(fmt.Errorf("nothing came for %s", maxSilence)) })
	defer silence.Stop()
	request, err := c.request(ctx, http.MethodGet, PathEvents, cursor(*at), c.bearer(), nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Accept", EventStreamType+", "+ProblemContentType)
	endless := *c.http
	endless.Timeout = 0
	response, err := send(&endless, request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || mediaType(response) != EventStreamType {
		return false, problem(response)
	}
	return true, readStream(response.Body, func() { silence.Reset(maxSilence) }, at, each)
}

// readStream gives each the events of a stream of server-sent events, as far as a deployer
// makes use of these, and moves the cursor along with them. It calls heard for each line.
func readStream(stream io.Reader, heard func(), cursor *string, each func(Event) error) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEventLine)
	isProblem := false
	for lines.Scan() {
		heard()
		line := lines.Bytes()
		data, isData := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case len(line) == 0:
			isProblem = false
		case bytes.Equal(line, []byte("event: problem")):
			isProblem = true
		case isData && isProblem:
			e := new(Error)
			if err := json.Unmarshal(data, &e.Problem); err != nil {
				return fmt.Errorf("read a problem: %w", err)
			}
			e.Title, e.Detail, e.Code = printable(e.Title), printable(e.Detail), printable(e.Code)
			return e
		case isData:
			var e Event
			if err := json.Unmarshal(data, &e); err != nil {
				return fmt.Errorf("read an event: %w", err)
			}
			if err := each(e); err != nil {
				return &stopError{err}
			}
			*cursor = e.Cursor
		}
	}
	return lines.Err()
}

// cursor is the query for what is behind after, "" for all.
func cursor(after string) url.Values {
	if after == "" {
		return nil
	}
	return url.Values{"after": {after}}
}

// page is the query for the page behind after.
func page(after string) url.Values {
	query := url.Values{"limit": {strconv.Itoa(MaxList)}}
	if after != "" {
		query.Set("after", after)
	}
	return query
}
