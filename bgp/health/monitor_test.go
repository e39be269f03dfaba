package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// target is a service whose answer tests set.
type target struct {
	mu    sync.Mutex
	err   error
	asked int
}

func (s *target) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *target) probe(context.Context, Check) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.err
}

func (s *target) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

var sample = Check{Kind: TCP, Address: "127.0.0.1:80", Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}

var errRefused = errors.New("connection refused")

func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var service target
		var changes atomic.Int32
		m := NewMonitor(Config{OnChange: func(Check, State) { changes.Add(1) }, Probe: service.probe})
		defer m.Close()
		m.Update([]Check{sample})
		expect := func(after time.Duration, status Status, reason string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if s := m.State(sample); s.Status != status || s.Reason != reason {
				t.Fatalf("state is %v, %q; want %v, %q", s.Status, s.Reason, status, reason)
			}
		}
		round := sample.Interval * 11 / 10
		expect(0, Unknown, "not asked yet")
		expect(time.Second, Up, "answers well") // soon, since every answer was good
		since := m.State(sample).Since
		service.set(errRefused)
		expect(round, Up, "connection refused (1 of fall 3)")
		expect(round, Up, "connection refused (2 of fall 3)")
		service.set(nil)
		expect(round, Up, "answers well")
		if m.State(sample).Since != since {
			t.Fatal("since moved without a change")
		}
		service.set(errRefused)
		expect(3*round, Down, "connection refused")
		if got := changes.Load(); got != 2 {
			t.Fatalf("%d changes told, want 2", got)
		}
	})
}

// What this host could not ask says nothing of what was to be asked: neither up nor down
// comes of it, nor does it break a row of answers.
func TestNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var service target
		var log bytes.Buffer
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Probe: service.probe, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer m.Close()
		m.Update([]Check{sample})
		expect := func(after time.Duration, status Status, reason, notAsked string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if s := m.State(sample); s.Status != status || s.Reason != reason || s.NotAsked != notAsked {
				t.Fatalf("state is %v, %q, %q; want %v, %q, %q", s.Status, s.Reason, s.NotAsked, status, reason, notAsked)
			}
		}
		round := sample.Interval * 11 / 10
		exhausted := asLocal(&net.OpError{Op: "dial", Err: syscall.EMFILE})
		expect(time.Second, Up, "answers well", "")
		service.set(errRefused)
		expect(round, Up, "connection refused (1 of fall 3)", "")
		service.set(exhausted)
		expect(50*time.Second, Up, "connection refused (1 of fall 3)", "cannot be asked: dial: too many open files")
		service.set(errRefused)
		expect(2*round, Down, "connection refused", "")
		service.set(exhausted)
		expect(time.Hour, Down, "connection refused", "cannot be asked: dial: too many open files")
		if n := strings.Count(log.String(), "checks cannot be asked, and stay as they are"); n < 50 || n > 62 {
			t.Errorf("said %d times in an hour", n)
		}
	})
}

// One bad answer now and then never takes a VIP down.
func TestAlternatingAnswersChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		m := NewMonitor(Config{OnChange: func(Check, State) { t.Error("changed") }, Probe: func(context.Context, Check) error {
			if n.Add(1)%2 == 0 {
				return errRefused
			}
			return nil
		}})
		defer m.Close()
		m.Update([]Check{sample})
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := m.State(sample); s.Status != Unknown {
			t.Fatal(s)
		}
	})
}

// A check that stays in the configuration keeps its state; one that differs in
// anything starts anew; one that is gone is asked no more.
func TestUpdateKeepsTheUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var service target
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Probe: service.probe})
		defer m.Close()
		m.Update([]Check{sample, sample})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		before := m.State(sample)
		changed := sample
		changed.Fall++
		m.Update([]Check{sample, changed})
		if got := m.State(sample); got != before || got.Status != Up {
			t.Fatalf("state went from %v to %v", before, got)
		}
		if got := m.State(changed); got.Status != Unknown {
			t.Fatalf("a new check is %v", got)
		}
		m.Update(nil)
		synctest.Wait()
		asked := service.count()
		time.Sleep(time.Minute)
		synctest.Wait()
		if service.count() != asked || m.State(sample).Status != Unknown {
			t.Fatal("a removed check goes on")
		}
	})
}

// A probe that ignores the clock is cut off after the check's timeout, and says so.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Probe: func(ctx context.Context, _ Check) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		defer m.Close()
		m.Update([]Check{sample})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := m.State(sample); s.Status != Down || s.Reason != "no answer within 1s" {
			t.Fatal(s)
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		const limit = 64
		m := NewMonitor(Config{MaxConcurrent: limit, OnChange: func(Check, State) {}, Probe: func(context.Context, Check) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(10 * time.Millisecond)
			return nil
		}})
		defer m.Close()
		var checks []Check
		for i := range 1000 {
			c := sample
			c.Address = fmt.Sprintf("127.0.0.1:%d", i+1)
			checks = append(checks, c)
		}
		m.Update(checks)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := most.Load(); n > limit {
			t.Fatalf("%d at once", n)
		}
		for _, c := range checks {
			if m.State(c).Status != Up {
				t.Fatalf("%s is %v", c.Target(), m.State(c))
			}
		}
	})
}

// Checks that hang, however many, do not keep another one waiting.
func TestHangingChecksDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var service target
		var log bytes.Buffer
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Logger: slog.New(slog.NewTextHandler(&log, nil)), MaxConcurrent: 10_000, Probe: func(ctx context.Context, c Check) error {
			if c == sample {
				return service.probe(ctx, c)
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		defer m.Close()
		checks := []Check{sample}
		for i := range 5000 {
			c := sample
			c.Address = fmt.Sprintf("198.51.100.1:%d", i+1)
			checks = append(checks, c)
		}
		m.Update(checks)
		time.Sleep(time.Minute)
		service.set(errRefused)
		time.Sleep(time.Duration(sample.Fall) * sample.Interval * 11 / 10)
		synctest.Wait()
		if s := m.State(sample); s.Status != Down {
			t.Errorf("%v, %s", s.Status, s.Reason)
		}
		if strings.Contains(log.String(), "start late") {
			t.Error("probes started late")
		}
	})
}

// Where files run short, and checks have to wait for one another, the log says so, once a minute.
func TestLateChecksAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := NewMonitor(Config{OnChange: func(Check, State) {}, Logger: slog.New(slog.NewTextHandler(&log, nil)), MaxConcurrent: 1, Probe: func(ctx context.Context, _ Check) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		other := sample
		other.Address = "127.0.0.1:81"
		third := sample
		third.Address = "127.0.0.1:82"
		m.Update([]Check{sample, other, third})
		time.Sleep(50 * time.Second)
		m.Close()
		if n := strings.Count(log.String(), "checks start late, for want of open files"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
	})
}

// After a start a check whose answers are all good is up soon, however long its
// interval; one bad answer, and everything takes its time.
func TestSoonUpAfterStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Check{Kind: TCP, Address: "127.0.0.1:80", Interval: 30 * time.Second, Timeout: time.Second, Rise: 3, Fall: 3}
		var good, bad target
		bad.set(errRefused)
		for service, want := range map[*target]Status{&good: Up, &bad: Unknown} {
			m := NewMonitor(Config{OnChange: func(Check, State) {}, Probe: service.probe})
			m.Update([]Check{slow})
			time.Sleep(600 * time.Millisecond) // 250 until the first probe, twice 110 for the others
			synctest.Wait()
			if s := m.State(slow); s.Status != want {
				t.Errorf("%v, %s; want %v", s.Status, s.Reason, want)
			}
			asked := service.count()
			time.Sleep(25 * time.Second)
			if service.count() != asked {
				t.Error("asked more often than every interval")
			}
			m.Close()
		}
	})
}

// The interval of each check varies, so that checks do not march in step.
func TestJitter(t *testing.T) {
	for range 1000 {
		if d := jitter(time.Second); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Fatal(d)
		}
	}
}

// What happened to a check is told in its order, however long it takes to tell.
func TestChangesAreToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		var told []Status
		m := NewMonitor(Config{
			Probe: func(context.Context, Check) error {
				if asked.Add(1)%2 == 0 {
					return errRefused
				}
				return nil
			},
			OnChange: func(_ Check, s State) {
				if s.Status == Up {
					time.Sleep(time.Minute)
				}
				told = append(told, s.Status)
			},
		})
		c := sample
		c.Rise, c.Fall = 1, 1
		m.Update([]Check{c})
		time.Sleep(10 * time.Minute)
		m.Close()
		if len(told) < 10 {
			t.Errorf("told are %v", told)
		}
		for i, s := range told {
			if want := []Status{Up, Down}[i%2]; s != want {
				t.Fatalf("told are %v", told)
			}
		}
	})
}
