package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// watched serves events of a store that keeps few of them.
type watched struct {
	t      *testing.T
	store  store.Store
	url    string
	client *api.Client
}

func newWatched(t *testing.T, cfg server.Config) *watched {
	t.Helper()
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db"), KeptEvents: 500})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Registry, err = deployer.New(t.Context(), deployer.Config{Store: file, Logger: cfg.Logger}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.NewHTTP(server.AsDocumented(t, server.New(cfg)))
	go func() { _ = srv.Serve(smallBuffers{listener}) }()
	t.Cleanup(func() { _ = srv.Close() })
	w := &watched{t: t, store: file, url: "http://" + listener.Addr().String()}
	if w.client, err = api.NewClient(w.url, 10*time.Second, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) happens(reasons ...string) {
	w.t.Helper()
	for _, reason := range reasons {
		e := store.Event{At: time.Now(), Node: "node01", Event: node.EventBooted, From: node.Pending, To: node.Provisioning, Reason: reason}
		if err := w.store.Append(w.t.Context(), e); err != nil {
			w.t.Fatal(err)
		}
	}
}

// opened is an answer whose body is closed with the test.
type opened struct {
	status int
	header http.Header
	body   io.Reader
}

// open asks for a stream.
func (w *watched) open(query, lastID string) opened {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+api.PathEvents+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Accept", api.EventStreamType)
	return w.do(r, lastID)
}

func (w *watched) do(r *http.Request, lastID string) opened {
	w.t.Helper()
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = response.Body.Close() })
	return opened{response.StatusCode, response.Header, response.Body}
}

func (w *watched) problem(response opened) api.Problem {
	w.t.Helper()
	var p api.Problem
	if err := json.NewDecoder(response.body).Decode(&p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func TestEventList(t *testing.T) {
	w := newWatched(t, server.Config{})
	list, err := w.client.Events(t.Context(), "")
	if err != nil || list.Events == nil || len(list.Events) != 0 || list.Next == "" || list.More {
		t.Fatalf("%+v, %v", list, err)
	}
	empty := list.Next
	w.happens("a", "b", "c")
	list, err = w.client.Events(t.Context(), empty)
	if err != nil || len(list.Events) != 3 || list.Events[2].Cursor != list.Next {
		t.Fatalf("%+v, %v", list, err)
	}
	if e := list.Events[0]; e.NodeID != "node01" || e.Event != node.EventBooted || e.From != node.Pending || e.To != node.Provisioning || e.Reason != "a" || e.At.IsZero() {
		t.Errorf("%+v", e)
	}
	get := func(query string) (opened, api.EventList) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+api.PathEvents+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		response := w.do(r, "")
		var list api.EventList
		if response.status == http.StatusOK {
			if err := json.NewDecoder(response.body).Decode(&list); err != nil {
				t.Fatal(err)
			}
		}
		return response, list
	}
	if _, list := get("?limit=1&after=" + list.Events[0].Cursor); len(list.Events) != 1 || list.Events[0].Reason != "b" || !list.More {
		t.Errorf("a page of one: %+v", list)
	}
	for query, field := range map[string]string{
		"?after=x": "after", "?limit=0": "limit", "?limit=1001": "limit", "?limit=x": "limit", "?since=x": "since", "?after=x&after=y": "after",
	} {
		response, _ := get(query)
		if p := w.problem(response); p.Status != 400 || p.Code != api.CodeBadRequest || p.Field != field || !strings.HasPrefix(p.Detail, field+": ") {
			t.Errorf("%s: %+v", query, p)
		}
	}
	for range 600 {
		w.happens("more")
	}
	for _, response := range []opened{w.open("?after="+empty, ""), w.open("", empty)} {
		if p := w.problem(response); response.status != http.StatusGone || p.Code != api.CodeCursorGone {
			t.Errorf("%d %+v", response.status, p)
		}
	}
	_, err = w.client.Events(t.Context(), empty)
	var gone *api.Error
	if !errors.As(err, &gone) || gone.Code != api.CodeCursorGone || gone.Temporary() {
		t.Errorf("by the client: %v", err)
	}
	if err := w.client.Follow(t.Context(), empty, func(api.Event) error { return nil }); !errors.As(err, &gone) || gone.Code != api.CodeCursorGone {
		t.Errorf("followed: %v", err)
	}
}

// TestEventStream: what was before and what comes is streamed, with heartbeats, and a
// watcher that comes again goes on where it was.
func TestEventStream(t *testing.T) {
	stop := make(chan struct{})
	w := newWatched(t, server.Config{Heartbeat: 10 * time.Millisecond, MaxWatchers: 1, Stop: stop})
	w.happens("before")
	response := w.open("", "")
	if response.status != http.StatusOK || response.header.Get("Content-Type") != api.EventStreamType || response.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", response.status, response.header)
	}
	if p := w.problem(w.open("", "")); p.Code != api.CodeBusy {
		t.Errorf("one watcher too many: %+v", p)
	}
	lines := bufio.NewScanner(response.body)
	next := func(prefix string) string {
		t.Helper()
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return rest
			}
		}
		t.Fatalf("no %q: %v", prefix, lines.Err())
		return ""
	}
	id := next("id: ")
	if data := next("data: "); !strings.Contains(data, `"reason":"before"`) || !strings.Contains(data, `"cursor":"`+id+`"`) {
		t.Errorf("got %s", data)
	}
	next(": heartbeat")
	w.happens("live")
	if data := next("data: "); !strings.Contains(data, `"reason":"live"`) {
		t.Errorf("got %s", data)
	}
	close(stop)
	rest, err := io.ReadAll(response.body)
	if err != nil || strings.Contains(string(rest), "data:") {
		t.Errorf("at the end: %q, %v", rest, err)
	}
	for lines = bufio.NewScanner(w.open("?after=x", id).body); !strings.Contains(next("data: "), `"live"`); {
		t.Error("it does not go on behind the last id")
	}
}

// TestSlowWatcher: one that does not read is dropped, and the others are served.
func TestSlowWatcher(t *testing.T) {
	w := newWatched(t, server.Config{WriteTimeout: 200 * time.Millisecond})
	for range 100 {
		w.happens(strings.Repeat("long ", 800))
	}
	conn := say(t, strings.TrimPrefix(w.url, "http://"), "GET "+api.PathEvents+" HTTP/1.1\r\nHost: x\r\nAccept: "+api.EventStreamType+"\r\n\r\n")
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	watchers := func() string {
		response, err := http.Get(w.url + api.PathMetrics)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, number, _ := strings.Cut(string(text), "\nplasmacloud_deployer_event_watchers ")
		number, _, _ = strings.Cut(number, "\n")
		return number
	}
	until := func(want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); watchers() != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s watchers, want %s", watchers(), want)
			}
		}
	}
	until("1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := 0
	err := w.client.Follow(ctx, "", func(api.Event) error {
		if read++; read == 100 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || read != 100 {
		t.Errorf("the other one: %d, %v", read, err)
	}
	until("0")
}

// TestWatchersShare: many watchers at one place cost about what one of them does.
func TestWatchersShare(t *testing.T) {
	w := newWatched(t, server.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const many = 50
	came := make(chan string, 2*many)
	for range many {
		go func() {
			_ = w.client.Follow(ctx, "", func(e api.Event) error { came <- e.Reason; return nil })
		}()
	}
	for _, reason := range []string{"first", "second"} {
		w.happens(reason)
		for i := range many {
			select {
			case got := <-came:
				if got != reason {
					t.Fatalf("got %q, want %q", got, reason)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%d of %d got the %s", i, many, reason)
			}
		}
	}
}
