package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/metrics"
)

func note(a *bgp.Announcer, e bgp.Event) { a.Note(slog.LevelDebug, "test", e) }

// Who follows sees what is kept, what comes, in order and once, and only what is asked for.
func TestFollow(t *testing.T) {
	t.Parallel()
	socket, a, _ := serve(t, func() metrics.Status { return metrics.Status{} })
	vip := netip.MustParseAddr("203.0.113.10")
	note(a, bgp.Event{Kind: bgp.EventStarted})
	note(a, bgp.Event{Kind: bgp.EventHeld, VIP: vip, Cause: bgp.CauseHealth, Reason: "up"})
	got := make(chan metrics.Event, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	of := make(chan metrics.Event, 100)
	go func() {
		ended <- NewClient(socket).Follow(ctx, "", netip.Addr{}, func(e metrics.Event) error { got <- e; return nil })
	}()
	go func() {
		ended <- NewClient(socket).Follow(ctx, "", vip, func(e metrics.Event) error { of <- e; return nil })
	}()
	next := func(from chan metrics.Event, want string) {
		t.Helper()
		select {
		case e := <-from:
			if text := strings.TrimSpace(e.Event + " " + e.VIP + " " + e.Reason); text != want {
				t.Errorf("got %s, want %s", text, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %s", want)
		}
	}
	next(got, "started")
	next(got, "held 203.0.113.10 up")
	next(of, "held 203.0.113.10 up")
	if _, err := NewClient(socket).Drain(t.Context(), Order{VIP: vip.String(), Reason: "rebuilt"}); err != nil {
		t.Fatal(err)
	}
	next(got, "drained 203.0.113.10 rebuilt")
	next(of, "drained 203.0.113.10 rebuilt")
	note(a, bgp.Event{Kind: bgp.EventSpeakerReady})
	note(a, bgp.Event{Kind: bgp.EventReleased, VIP: vip})
	next(got, "speaker_ready")
	next(got, "released 203.0.113.10")
	next(of, "released 203.0.113.10")
	stop()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	list, err := NewClient(socket).Events(t.Context(), "", netip.Addr{})
	if err != nil || len(list.Events) != 5 || list.More || list.Events[2].By == "" || list.Events[1].Cause != "health" {
		t.Errorf("%+v, %v", list, err)
	}
	if rest, err := NewClient(socket).Events(t.Context(), list.Events[3].Cursor, netip.Addr{}); err != nil || len(rest.Events) != 1 {
		t.Errorf("%+v, %v", rest, err)
	}
}

// A question with a mistake is told of it, with a status of its own.
func TestEventQuestions(t *testing.T) {
	t.Parallel()
	socket, a, _ := serve(t, func() metrics.Status { return metrics.Status{} })
	note(a, bgp.Event{Kind: bgp.EventStarted})
	raw := &http.Client{Transport: NewClient(socket).http.Transport}
	for query, want := range map[string]string{
		"after=x": `400 after: "x" is not a cursor of this announcer`, "vip=a": "400 vip: ", "vip=::ffff:203.0.113.10": "400 vip: ",
		"limit=0": "400 limit: ", "limit=1001": "400 limit: ", "follow=maybe": "400 follow: ", "vips=1": `400 "vips": unknown`, "after=&after=": `400 "after": `,
		"limit=1": "200 {", "": "200 {",
	} {
		response, err := raw.Get("http://x/v1/events?" + query)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		text := string(body)
		var problem Problem
		if json.Unmarshal(body, &problem) == nil && problem.Text != "" {
			text = problem.Text
		}
		if got := fmt.Sprint(response.StatusCode, " ", text); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// One that follows and reads too slowly is told so at the end of what it gets; nobody waits
// for it. Those that follow leave room for orders.
func TestSlowFollower(t *testing.T) {
	t.Parallel()
	socket, a, _ := serve(t, func() metrics.Status { return metrics.Status{} })
	var slow []net.Conn
	for range maxFollowers {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprint(conn, "GET /v1/events?follow=true HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil { // it is being served
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	err := NewClient(socket).Follow(t.Context(), "", netip.Addr{}, nil)
	if err == nil || !strings.Contains(err.Error(), "4 others follow the events already") {
		t.Errorf("one more: %v", err)
	}
	for range 2 { // what fits into the socket, and all that is kept
		for range 12_000 {
			note(a, bgp.Event{Kind: bgp.EventPassFailed, Reason: strings.Repeat("x", 300)})
		}
	}
	if _, err := NewClient(socket).Drain(t.Context(), Order{VIP: "203.0.113.10", Reason: "why"}); err != nil {
		t.Error(err)
	}
	var last string
	for lines := bufio.NewScanner(slow[0]); lines.Scan(); {
		last = lines.Text()
	}
	if want := `{"error":"you read too slowly: after: events after the cursor are not kept any more`; !strings.HasPrefix(last, want) {
		t.Errorf("the last line is %.200s", last)
	}
}

// An announcer that is started again goes on at the same socket: who follows does too.
func TestFollowOverRestart(t *testing.T) {
	t.Parallel()
	socket, first, running := serve(t, func() metrics.Status { return metrics.Status{} })
	note(first, bgp.Event{Kind: bgp.EventStarted, Reason: "first"})
	got := make(chan metrics.Event, 10)
	go func() {
		_ = NewClient(socket).Follow(t.Context(), "", netip.Addr{}, func(e metrics.Event) error { got <- e; return nil })
	}()
	if e := <-got; e.Reason != "first" {
		t.Fatalf("%+v", e)
	}
	running.Close()
	second := bgp.New(bgp.Options{Config: &bgp.Config{}})
	note(second, bgp.Event{Kind: bgp.EventStarted, Reason: "second"})
	s, err := Listen(socket, socket+".drains", second, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	select {
	case e := <-got:
		if e.Reason != "second" {
			t.Errorf("%+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing came from the second")
	}
}
