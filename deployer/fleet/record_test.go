package fleet

import (
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
