package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/metrics"
)

// FuzzRequests takes any bytes for the body of a request: it is answered in JSON, and what
// then stands is what is in the file.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{`{"vip": "203.0.113.10", "reason": "why"}`, `{"reason": "why"}`, `{"vip": ""}`, `{"vip": "203.0.113.10%eth0"}`, `{"vip": "\u0000"}`, `{}{}`, `[`, ``} {
		for path := range 3 {
			f.Add(path, []byte(body))
		}
	}
	file := filepath.Join(f.TempDir(), "drains.json")
	a := bgp.New(bgp.Options{Config: &bgp.Config{VIPs: []bgp.VIP{{Address: netip.MustParseAddr("203.0.113.10")}}}})
	s := &Server{announcer: a, file: file, log: slog.New(slog.DiscardHandler), status: func() metrics.Status { return metrics.Status{} }}
	f.Fuzz(func(t *testing.T, path int, body []byte) {
		handler, name := s.drain, "/v1/drain"
		switch path & 3 {
		case 1:
			handler, name = s.undrain, "/v1/undrain"
		case 2:
			// One without a mistake is a question for Run, which does not run here.
			if _, err := bgp.ParseConfig(body); err == nil {
				return
			}
			handler, name = s.plan, "/v1/plan"
		}
		r := httptest.NewRequest(http.MethodPost, name, bytes.NewReader(body))
		w := httptest.NewRecorder()
		handler(w, r)
		var answer struct {
			State
			Problem
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || (w.Code == http.StatusOK) != (answer.Text == "") {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		kept, err := Load(file)
		if orders := a.DrainOrders(); err != nil || !reflect.DeepEqual(kept.Clone(), orders) {
			t.Errorf("in force are %+v, kept are %+v, %v", orders, kept, err)
		}
	})
}

// FuzzOrders takes any bytes for the file of orders: what is read is what is written again.
func FuzzOrders(f *testing.F) {
	for _, text := range []string{
		`{"node": {"reason": "why", "by": "uid 0", "since": "2026-01-02T15:04:05Z"}, "vips": {"203.0.113.10": {"reason": "x"}}}`,
		`{"node": null, "vips": null}`, `{"vips": {"fe80::1%eth0": {}}}`, `{} {}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var orders, again bgp.DrainOrders
		if decode(bytes.NewReader(data), &orders) != nil {
			return
		}
		text, err := json.Marshal(orders)
		if err != nil {
			return // a year of five digits, which save refuses to keep
		}
		if err := decode(bytes.NewReader(text), &again); err != nil || !reflect.DeepEqual(orders.Clone(), again.Clone()) {
			t.Errorf("%s became %+v, %v", text, again, err)
		}
	})
}

// said answers every request with the same bytes.
type said struct {
	status int
	body   []byte
}

func (s said) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.status, Status: "the status", Body: io.NopCloser(bytes.NewReader(s.body))}, nil
}

// FuzzReplies takes any bytes for what the announcer answers to plasmactl.
func FuzzReplies(f *testing.F) {
	f.Add(200, []byte(`{"status": {"vips": [{"address": "203.0.113.10"}]}, "drains": {"node": null}}`))
	f.Add(200, []byte(`{"steps": [{"do": "bind"}]}`))
	f.Add(200, []byte(`{"events": [{"cursor": "a.1"}], "next": "a.1"}`))
	f.Add(400, []byte(`{"error": "no"}`))
	f.Add(500, []byte(nil))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		c := NewClient("/nowhere")
		c.http.Transport = said{status, body}
		_, err := c.State(t.Context())
		if _, drainErr := c.Drain(t.Context(), Order{}); (drainErr == nil) != (err == nil) {
			t.Errorf("%v, and %v", err, drainErr)
		}
		_, planErr := c.Plan(t.Context(), nil)
		_, eventsErr := c.Events(t.Context(), "", netip.Addr{})
		var problem *Problem
		for _, err := range []error{err, planErr, eventsErr} {
			if status != http.StatusOK && (!errors.As(err, &problem) || problem.Text == "") {
				t.Errorf("status %d: %v", status, err)
			}
		}
	})
}

// What a stream has is events, signs of life and one error; anything else is an error, of
// bounded length in memory.
func FuzzReadEvents(f *testing.F) {
	f.Add("\n{\"cursor\":\"a.1\",\"event\":\"held\",\"vip\":\"203.0.113.10\"}\n\n")
	f.Add(`{"error":"you read too slowly"}`)
	f.Add("null\n[]\n{}\n{\"at\":1}")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		err := readEvents(strings.NewReader(text), func(metrics.Event) error { n++; return nil })
		if n > strings.Count(text, "\n")+1 {
			t.Errorf("%d events", n)
		}
		var problem *Problem
		if err != nil && !errors.As(err, &problem) && !errors.Is(err, bufio.ErrTooLong) {
			t.Error(err)
		}
	})
}
