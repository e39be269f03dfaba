package bgp_test

import (
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// The speaker dies and comes back: its table is empty, and filled again at once,
// while the host never lets go of a VIP.
func TestSpeakerKilled(t *testing.T) { gobgpdtest.Each(t, testSpeakerKilled) }

func testSpeakerKilled(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g})
	s.configure(object{"address": v4a}, object{"address": v6a})
	s.start()
	s.waitRoutes(v4a, v6a)
	removed := s.removals()
	s.daemon.Kill()
	s.waitRoutes()
	s.waitLog("speaker not ready", 1)
	s.daemon.Run()
	client := s.daemon.Client(time.Second)
	began := time.Now()
	s.eventually("speaker has the paths again", func() error {
		table, err := client.List(t.Context())
		if err == nil && len(table.Own) != 2 {
			err = fmt.Errorf("has %v", table.Own)
		}
		return err
	})
	t.Logf("announced again %s after the API answered", time.Since(began).Round(time.Millisecond))
	s.waitRoutes(v4a, v6a)
	for _, v := range []string{v4a, v6a} {
		if at, ok := removed.of(v); ok {
			t.Errorf("%s was let go at %s", v, at)
		}
	}
	// One line for each change, not for each attempt.
	if n := s.count("speaker not ready"); n > 3 {
		t.Errorf("%d lines on one outage", n)
	}
}

// With graceful restart (RFC 4724) the router does not even notice.
func TestSpeakerKilledGracefully(t *testing.T) { gobgpdtest.Each(t, testSpeakerKilledGracefully) }

func testSpeakerKilledGracefully(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g, GracefulRestart: true})
	s.configure(object{"address": v4a})
	s.start()
	s.waitRoutes(v4a)
	lost := make(chan string, 10)
	watchWithdrawals(t, s.router.API, func(prefix string) { lost <- prefix })
	s.daemon.Kill()
	s.eventually("router keeps the route as stale", func() error {
		routes, err := s.router.Routes(t.Context())
		if err == nil && (len(routes) != 1 || !routes[0].Stale) {
			err = fmt.Errorf("routes are %+v", routes)
		}
		return err
	})
	s.daemon.Run("-r")
	s.waitRoutes(v4a)
	select {
	case prefix := <-lost:
		t.Errorf("router lost %s", prefix)
	default:
	}
}

// A daemon that hangs: nothing is released, neither for a VIP that is down nor at
// the stop, which says so and fails.
func TestSpeakerHangs(t *testing.T) { gobgpdtest.Each(t, testSpeakerHangs) }

func testSpeakerHangs(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	s.configure(object{"address": v4a, "checks": []object{web.check()}}, object{"address": v6a})
	s.start()
	s.waitRoutes(v4a, v6a)
	removed := s.removals()
	s.daemon.Signal(syscall.SIGSTOP)
	s.waitLog("speaker not ready", 1)
	web.bad.Store(true)
	s.waitLog("health changed", 2)
	// It goes on: the withdraw that was due is made up for.
	s.daemon.Signal(syscall.SIGCONT)
	s.waitRoutes(v6a)
	s.waitHeld(v6a)

	s.daemon.Signal(syscall.SIGSTOP)
	s.waitLog("speaker not ready", 2)
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	t.Logf("gave up after %s", time.Since(began).Round(100*time.Millisecond))
	if _, ok := removed.of(v6a); ok {
		t.Error("released while it may be announced")
	}
	last := s.logged()[len(s.logged())-1].text
	if !strings.Contains(last, "addresses left as they are") || !strings.Contains(last, "does not answer") {
		t.Errorf("the last line is %q", last)
	}
	s.daemon.Signal(syscall.SIGCONT)
}

// A daemon that is dead tells nobody, and its router may wait for it to come back
// (graceful restart): what it may send to stays held, and the stop says so and fails.
func TestStopWithSpeakerDead(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{GracefulRestart: true})
	s.configure(object{"address": v4a})
	s.start()
	s.waitLog("announced", 1) // so that the call is over when the daemon dies
	s.waitRoutes(v4a)
	s.daemon.Kill()
	s.waitLog("speaker not ready", 1)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	s.waitHeld(v4a)
	last := s.logged()[len(s.logged())-1].text
	if want := "stopped with paths unknown and 1 addresses left as they are"; !strings.Contains(last, want) || !strings.Contains(last, "not running") {
		t.Errorf("the last line is %q, want %s", last, want)
	}
	// Once it is back and its router has heard of it, a stop is clean.
	s.daemon.Run("-r")
	s.start()
	s.waitRoutes(v4a)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitRoutes()
	s.waitHeld()
}

// The daemon is back, and its router is not yet: the drain waits for the session.
func TestStopWithoutSession(t *testing.T) { gobgpdtest.Each(t, testStopWithoutSession) }

func testStopWithoutSession(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g, GracefulRestart: true})
	s.configure(object{"address": v4a})
	s.start()
	s.waitLog("announced", 1) // so that the call is over when the daemon dies
	s.waitRoutes(v4a)
	s.router.Signal(syscall.SIGSTOP)
	s.daemon.Kill()
	s.daemon.Run("-r")
	s.waitLog("announced", 2)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	s.router.Signal(syscall.SIGCONT)
	s.waitHeld(v4a)
	last := s.logged()[len(s.logged())-1].text
	if want := "stopped with 0 paths and 1 addresses left as they are"; !strings.Contains(last, want) || !strings.Contains(last, "no router has a session") {
		t.Errorf("the last line is %q, want %s", last, want)
	}
}

// The announcer starts before its speaker, says so once, and works once it comes.
func TestSpeakerComesLater(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	s.daemon.Kill()
	s.configure(object{"address": v4a})
	s.start()
	s.waitLog("speaker not ready", 1)
	s.daemon.Run()
	s.waitRoutes(v4a)
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Fatalf("exit status %d", code)
	}
}

// The daemon is upgraded to the other generation under a running announcer, and
// downgraded again: each time the routes come back, and no VIP is let go.
func TestSpeakerReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{Generation: gobgpdtest.V3})
	s.configure(object{"address": v4a, "med": 7, "communities": []string{"65001:100"}}, object{"address": v6a})
	s.start()
	s.waitRoutes(v4a, v6a)
	before, removed := s.router.Learned(t), s.removals()
	for i, generation := range []gobgpdtest.Generation{gobgpdtest.V4, gobgpdtest.V3} {
		s.daemon.Replace(generation)
		s.waitLog("announced", i+2)
		s.waitRoutes(v4a, v6a)
		if after := s.router.Learned(t); !reflect.DeepEqual(before, after) {
			t.Errorf("gobgpd %s sends %+v, the one before %+v", generation, after, before)
		}
	}
	for _, v := range []string{v4a, v6a} {
		if at, ok := removed.of(v); ok {
			t.Errorf("%s was let go at %s", v, at)
		}
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.waitRoutes()
	s.waitHeld()
	for _, l := range s.logged() {
		if strings.Contains(l.text, speaker.ErrWrongAPI.Error()) {
			t.Errorf("the upgrade is taken for a mistake: %s", l.text)
		}
	}
}
