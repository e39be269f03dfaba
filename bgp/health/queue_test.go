package health

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"pgregory.net/rapid"
)

// With fast_interval, a status changes after the first answer that contradicts it and
// as many fast ones as rise or fall wants; while nothing changes, the interval holds.
func TestFastInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Check{Kind: TCP, Address: "127.0.0.1:80", Interval: time.Minute, Fast: time.Second, Timeout: time.Second, Rise: 3, Fall: 4}
		var service target
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Probe: service.probe})
		defer m.Close()
		m.Update([]Check{c})
		time.Sleep(time.Second)
		for range 3 {
			for _, step := range []struct {
				err    error
				before Status
				after  Status
				fast   int
			}{{errRefused, Up, Down, c.Fall}, {nil, Down, Up, c.Rise}} {
				service.set(step.err)
				asked := service.count()
				for service.count() == asked {
					if m.State(c).Status != step.before {
						t.Fatalf("%+v", m.State(c))
					}
					time.Sleep(100 * time.Millisecond)
				}
				synctest.Wait()
				time.Sleep(time.Duration(step.fast-1) * 1100 * time.Millisecond)
				synctest.Wait()
				if m.State(c).Status != step.after || service.count() != asked+step.fast {
					t.Fatalf("%+v after %d", m.State(c), service.count()-asked)
				}
				time.Sleep(50 * time.Second)
				if service.count() != asked+step.fast {
					t.Fatal("goes on fast")
				}
			}
		}
	})
}

// Whatever is answered: a status follows from that many answers in a row and from
// nothing else, and the next question comes when it should.
func TestRiseAndFallProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := Check{
			Interval: time.Duration(rapid.IntRange(50, 10_000).Draw(t, "interval")) * time.Millisecond,
			Rise:     rapid.IntRange(1, 5).Draw(t, "rise"), Fall: rapid.IntRange(1, 5).Draw(t, "fall"),
		}
		if rapid.Bool().Draw(t, "has fast") {
			c.Fast = c.Interval / time.Duration(rapid.IntRange(1, 20).Draw(t, "fast"))
		}
		r := &runner{check: c}
		answers := rapid.SliceOfN(rapid.Bool(), 1, 60).Draw(t, "answers")
		want, changed := Unknown, -1
		for i, good := range answers {
			var err error
			if !good {
				err = errRefused
			}
			before := r.state.Status
			r.asked++
			r.observe(c, err, time.Unix(int64(i), 0))
			row := 1
			for i-row >= 0 && answers[i-row] == good {
				row++
			}
			switch {
			case good && row >= c.Rise && want != Up:
				want, changed = Up, i
			case !good && row >= c.Fall && want != Down:
				want, changed = Down, i
			}
			if r.state.Status != want {
				t.Fatalf("after %v: %s, want %s", answers[:i+1], r.state.Status, want)
			}
			if before != want && !r.state.Since.Equal(time.Unix(int64(changed), 0)) {
				t.Fatalf("since %s, changed at %d", r.state.Since, changed)
			}
			settled := want == Up && good || want == Down && !good
			start := want == Unknown && row == i+1 && good
			switch next := r.interval(); {
			case settled && next != c.Interval:
				t.Fatalf("after %v: next in %s, though nothing changes", answers[:i+1], next)
			case !settled && c.Fast > 0 && next > c.Fast, !start && c.Fast > 0 && next < c.Fast, !start && c.Fast == 0 && next != c.Interval:
				t.Fatalf("after %v: next in %s", answers[:i+1], next)
			case start && next > eager:
				t.Fatalf("after %v: next in %s, at the start", answers[:i+1], next)
			}
		}
	})
}

// Programs that hang keep only programs waiting.
func TestKindsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var most, now atomic.Int32
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Probe: func(ctx context.Context, c Check) error {
			if c.Kind != Exec {
				return nil
			}
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		}})
		defer m.Close()
		unit := Check{Kind: Systemd, Unit: "a.service", Interval: sample.Interval, Timeout: sample.Timeout, Rise: 2, Fall: 3}
		checks := []Check{sample, unit}
		for i := range 1000 {
			checks = append(checks, Check{Kind: Exec, Command: ListOf("/bin/check", fmt.Sprint(i)), Interval: sample.Interval, Timeout: sample.Timeout, Rise: 2, Fall: 1})
		}
		m.Update(checks)
		time.Sleep(time.Second)
		synctest.Wait()
		if m.State(sample).Status != Up || m.State(unit).Status != Up {
			t.Errorf("%+v, %+v", m.State(sample), m.State(unit))
		}
		// Each has its turn, and none a second one before.
		time.Sleep(time.Minute)
		synctest.Wait()
		if counts := m.Count(); counts[Down] != 1000 {
			t.Errorf("%v", counts)
		}
		if most.Load() != maxPrograms {
			t.Errorf("%d at once, want %d", most.Load(), maxPrograms)
		}
	})
}

// Probes that are late are made once, each check in turn.
func TestLateProbesDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[Check]int{}
		m := NewMonitor(Config{MaxConcurrent: 1, OnChange: func(Check, State) {}, Probe: func(_ context.Context, c Check) error {
			time.Sleep(time.Second)
			asked[c]++ // one at a time
			return nil
		}})
		var checks []Check
		for i := range 10 {
			c := Check{Kind: TCP, Address: fmt.Sprintf("127.0.0.1:%d", i+1), Interval: 2 * time.Second, Timeout: 2 * time.Second, Rise: 1000, Fall: 1}
			checks = append(checks, c)
		}
		m.Update(checks)
		time.Sleep(200 * time.Second)
		m.Close()
		for _, c := range checks {
			if n := asked[c]; n < 19 || n > 21 {
				t.Errorf("%s was asked %d times in 20 turns", c.Address, n)
			}
		}
	})
}

// Ten thousand checks that wait have no goroutine, and little memory.
func TestTenThousandChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		heap := func() uint64 {
			runtime.GC()
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			return s.HeapAlloc
		}
		var now, most, asked atomic.Int64
		goroutines, before := runtime.NumGoroutine(), heap()
		m := NewMonitor(Config{OnChange: func(Check, State) {}, MaxConcurrent: 100, Probe: func(context.Context, Check) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			asked.Add(1)
			time.Sleep(time.Millisecond)
			return nil
		}})
		checks := make([]Check, n)
		for i := range checks {
			checks[i] = Check{Kind: TCP, Address: fmt.Sprintf("127.0.%d.%d:80", i/250, i%250), Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
		}
		m.Update(checks)
		idle := runtime.NumGoroutine() - goroutines
		time.Sleep(time.Minute)
		if most.Load() > 100 {
			t.Errorf("%d probes at once", most.Load())
		}
		if got := m.Count()[Up]; got != n {
			t.Errorf("%d are up", got)
		}
		if got := asked.Load(); got < 25*n || got > 36*n {
			t.Errorf("asked %d times in a minute", got)
		}
		used := heap() - before
		if idle > 10 || used > n*4096 {
			t.Errorf("%d goroutines while all wait, %d bytes for a check", idle, used/n)
		}
		t.Logf("%d goroutines while all wait, at most %d probes at once, %d bytes for a check", idle, most.Load(), used/n)
		m.Close()
	})
}

func FuzzStatuses(f *testing.F) {
	for _, text := range []string{"", "200", "200-299", "299-200", "099", "200,404", "+200", "100-599", "1000"} {
		f.Add(text, 200)
	}
	f.Fuzz(func(t *testing.T, text string, code int) {
		entries := strings.Split(text, ",")
		s, err := ParseStatuses(entries)
		if err != nil {
			if len(err.Error()) > 400 {
				t.Errorf("long: %v", err)
			}
			return
		}
		again, err := ParseStatuses(strings.Split(string(s), ","))
		if err != nil || again != s {
			t.Errorf("%q became %q: %v", s, again, err)
		}
		one := false
		for _, entry := range entries {
			single, err := ParseStatuses([]string{entry})
			if err != nil {
				t.Fatalf("%q alone: %v", entry, err)
			}
			one = one || single.Has(code)
		}
		if s.Has(code) != one || one && (code < 100 || code > 599) {
			t.Errorf("%q has %d: %v", s, code, s.Has(code))
		}
	})
}

// What a program or a server says is one short line when it gets to logs and terminals.
func FuzzPrintable(f *testing.F) {
	f.Add([]byte("ready\nmore"))
	f.Add([]byte("\x1b[31m\xff\xfe" + strings.Repeat("é", maxReason)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var said firstLine
		half := len(data) / 2
		for _, part := range [][]byte{data[:half], data[half:]} {
			if n, err := said.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		line := said.String()
		if len(line) > maxReason+len("…") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", line)
		}
	})
}
