package bgp_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/internal/systemdtest"
)

// systemd restarts the announcer, by a real bus with a stand-in for systemd on it: routers
// hear nothing, and the host lets go of nothing. A stop withdraws, and so does a restart
// after which nobody could take over, or of which nothing is known.
func TestRestart(t *testing.T) { gobgpdtest.Each(t, testRestart) }

func testRestart(t *testing.T, g gobgpdtest.Generation) {
	bus := systemdtest.Start(t)
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	s.env = []string{"INVOCATION_ID=0123456789abcdef0123456789abcdef", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + bus.Socket}
	vips := []object{{"address": v4a, "med": 7, "checks": []object{web.check()}}, {"address": v6a, "hold": "route"}, {"address": v4b}}
	s.configure(vips...)
	s.start()
	s.waitRoutes(v4a, v6a, v4b)
	updates, removed := s.router.Updates(t), s.removals()
	for range 3 {
		bus.SetJob("restart")
		began := time.Now()
		s.signal(syscall.SIGTERM)
		if code := s.wait(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		if took := time.Since(began); took > drainDelay*3/4 {
			t.Logf("the end took %s", took)
		}
		s.waitHeld(v4a, v6a, v4b)
		s.start()
		asked := web.asked.Load()
		s.waitLog("health changed", 1)
		s.eventually("checks were asked again and again", func() error {
			if n := web.asked.Load(); n < asked+20 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	s.waitRoutes(v4a, v6a, v4b)
	if n := s.router.Updates(t) - updates; n != 0 {
		t.Errorf("%d UPDATEs for three restarts", n)
	}
	for _, v := range []string{v4a, v4b} {
		if at, ok := removed.of(v); ok {
			t.Errorf("%s was let go at %s", v, at)
		}
	}
	stops := func(what string, warns bool) {
		t.Helper()
		s.signal(syscall.SIGTERM)
		if code := s.wait(); code != 0 {
			t.Errorf("%s: exit status %d", what, code)
		}
		s.waitRoutes()
		s.waitHeld()
		warned := 0
		for _, l := range s.logged() {
			if strings.Contains(l.text, "taken for a stop") {
				warned++
			}
		}
		if (warned == 1) != warns {
			t.Errorf("%s: warned %d times", what, warned)
		}
		s.start()
		s.waitRoutes(v4a, v6a, v4b)
	}
	for _, job := range []string{"stop", "start", ""} {
		bus.SetJob(job)
		stops("with job "+job, false)
	}
	bus.SetJob("restart")
	good, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	mend := func() {
		if err := os.WriteFile(s.file, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, text := range map[string]string{
		"a file that cannot be read": "{",
		"another speaker":            strings.Replace(string(good), s.daemon.API, "127.0.0.1:1", 1),
		"another namespace":          strings.Replace(string(good), s.ns.Path, "/run/netns/other", 1),
	} {
		if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.signal(syscall.SIGTERM)
		if code := s.wait(); code != 0 {
			t.Errorf("%s: exit status %d", what, code)
		}
		s.waitHeld()
		mend()
		s.start()
		s.waitRoutes(v4a, v6a, v4b)
	}
	bus.Hang()
	stops("of a systemd that hangs", true)
	bus.Stop()
	stops("without a bus", true)
}

// An announcer that runs no more has its VIPs released after a time, and one that is
// started again within it has not.
func TestReleaseAfter(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	release := func(after string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "release", "--config", s.file, "--after", after)
		cmd.Stderr = t.Output()
		if err := gobgpdtest.StartProcess(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd
	}
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitRoutes(v4a, v6a)
	updates, removed := s.router.Updates(t), s.removals()
	if err := release("1h").Wait(); err != nil { // one runs
		t.Error(err)
	}
	s.crash()
	waiting := release("1h")
	s.start()
	if err := waiting.Wait(); err != nil { // one is back
		t.Error(err)
	}
	s.crash()
	signalled := release("1h")
	time.Sleep(100 * time.Millisecond) // or it is not waiting yet, and dies of the signal
	_ = signalled.Process.Signal(syscall.SIGTERM)
	_ = signalled.Wait()
	s.waitRoutes(v4a, v6a)
	if n := s.router.Updates(t) - updates; n != 0 {
		t.Errorf("%d UPDATEs", n)
	}
	if _, ok := removed.of(v4a); ok {
		t.Error("was let go")
	}
	if err := release("300ms").Wait(); err != nil {
		t.Error(err)
	}
	s.waitRoutes()
	s.waitHeld()
}
