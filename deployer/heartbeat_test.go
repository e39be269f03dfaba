package deployer

import (
	"testing"
	"time"
)

// TestHeartbeatInterval: a fleet of any size sends no more than the rate, and no node
// is asked more often than configured.
func TestHeartbeatInterval(t *testing.T) {
	for _, c := range []struct {
		least time.Duration
		rate  int
		nodes int
		want  time.Duration
	}{
		{10 * time.Second, 1000, 0, 10 * time.Second},
		{10 * time.Second, 1000, 10_000, 10 * time.Second},
		{10 * time.Second, 1000, 10_001, 13 * time.Second}, // 12.5s
		{10 * time.Second, 1000, 100_000, 117 * time.Second},
		{10 * time.Second, 50, 10_000, 228 * time.Second},
		{time.Minute, 1000, 10_000, time.Minute},
		{1500 * time.Millisecond, 1000, 100, 1500 * time.Millisecond},
		{10 * time.Second, 1, 100_000, time.Hour},
		{time.Hour, 1, 100_000, time.Hour},
	} {
		got := heartbeatInterval(c.least, c.rate, c.nodes)
		if got != c.want {
			t.Errorf("%d nodes at %d/s, at least %s: %s, want %s", c.nodes, c.rate, c.least, got, c.want)
		}
		if rate := float64(c.nodes) / got.Seconds(); rate > float64(c.rate) && got < MaxHeartbeatInterval {
			t.Errorf("%d nodes every %s are %.0f heartbeats a second, more than %d", c.nodes, got, rate, c.rate)
		}
	}
}
