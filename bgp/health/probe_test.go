package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestProbeHTTP(t *testing.T) {
	mux := http.NewServeMux()
	for path, code := range map[string]int{"/ok": 200, "/empty": 204, "/broken": 503, "/missing": 404} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/broken-off", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "short")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	plain, tls := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer tls.Close()
	for _, test := range []struct{ url, want string }{
		{plain.URL + "/ok", ""},
		{plain.URL + "/empty", ""},
		{tls.URL + "/ok", ""},
		{plain.URL + "/endless", ""},
		{plain.URL + "/broken", "answers 503, want 2xx"},
		{plain.URL + "/missing", "answers 404, want 2xx"},
		{plain.URL + "/elsewhere", "answers 302, want 2xx"},
		{plain.URL + "/broken-off", "its body breaks off"},
		{"http://127.0.0.1:1/", "connection refused"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := Probe(ctx, Check{Kind: HTTP, URL: test.url})
		cancel()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.url, err, test.want)
		}
	}
}

func TestProbeTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := Probe(t.Context(), Check{Kind: TCP, Address: address}); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := Probe(t.Context(), Check{Kind: TCP, Address: address}); err == nil {
		t.Error("a closed port is good")
	}
}

// A name that leads to the VIP is refused when it is dialled.
func TestProbeRefusesOwnVIP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, c := range []Check{{Kind: TCP, Address: "localhost:" + port}, {Kind: HTTP, URL: "http://localhost:" + port}} {
		c.NotAddr = netip.MustParseAddr("127.0.0.1")
		if err := Probe(t.Context(), c); err == nil || !strings.Contains(err.Error(), "leads to the VIP itself") {
			t.Errorf("%s: %v", c.Target(), err)
		}
	}
}
