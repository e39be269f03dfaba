package fleet

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestLatencies(t *testing.T) {
	var l latencies
	if got := l.percentile(0.99); got != 0 {
		t.Errorf("of nothing: %s", got)
	}
	for i := range 1000 {
		l.add(time.Duration(i+1) * time.Millisecond)
	}
	for p, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second} {
		if got := l.percentile(p); got < want || got > want+want/40 {
			t.Errorf("%v of 1ms to 1s is %s, want %s", p, got, want)
		}
	}
	l.add(0)
	l.add(48 * time.Hour)
	if l.percentile(0) > 2*time.Microsecond || l.percentile(1) != 48*time.Hour {
		t.Errorf("from %s to %s", l.percentile(0), l.percentile(1))
	}
}

// TestRefusedMeanwhile: what the nodes themselves are answered during an act is read while
// it is still being counted.
func TestRefusedMeanwhile(t *testing.T) {
	deployer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"title": "no", "status": 409, "code": "machine_conflict"}`)
	}))
	defer deployer.Close()
	f, err := New(Config{URL: deployer.URL, Nodes: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	over := make(chan struct{})
	var others sync.WaitGroup
	for i := range 2 {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
					f.playing.Load().answered(false, time.Millisecond, fmt.Sprintf("code %d-%d", i, n%2000))
				}
			}
		})
	}
	results, err := f.Duplicates(t.Context())
	close(over)
	others.Wait()
	if err != nil || len(results) != 1 || !slices.Contains(results[0].Faults, "a node itself was refused meanwhile: code 0-0") {
		t.Errorf("%v, %d results", err, len(results))
	}
}
