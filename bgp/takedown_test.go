package bgp_test

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/internal/netnstest"
	"github.com/centra/plasmacloud/bgp/vip"
)

// What a killed announcer left is taken down by hand: also VIPs that left the file, and
// nothing that is somebody else's. One that runs is left alone.
func TestRelease(t *testing.T) { gobgpdtest.Each(t, testRelease) }

func testRelease(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g})
	release := func() (string, int) {
		t.Helper()
		cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "release", "--config", s.file, "--last", s.file+".last")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	addForeign(t, s, "198.51.100.1")
	s.daemon.AddForeign(t, host(v4c), "0.0.0.0")
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitRoutes(v4a, v6a, v4c)
	s.waitHeld(v4a, v6a)
	if out, status := release(); status != 1 || !strings.Contains(out, "another announcer runs here") {
		t.Errorf("with an announcer: status %d, %s", status, out)
	}
	s.waitHeld(v4a, v6a)
	s.crash()
	s.configure(object{"address": v4b})
	removed := s.removals()
	if out, status := release(); status != 0 {
		t.Errorf("status %d, %s", status, out)
	}
	removed.wait(v4a)
	s.waitRoutes(v4c)
	s.waitHeld()
	if _, ok := removed.of("198.51.100.1"); ok {
		t.Error("the stranger's address is gone")
	}

	// The file is broken by the time, as by a bad upgrade that the announcer dies of.
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitRoutes(v4a, v6a, v4c)
	s.crash()
	if err := os.WriteFile(s.file, []byte(`{"schema_version": 1, "vips": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	if status := s.wait(); status != 78 {
		t.Errorf("with a broken file the announcer ends with %d", status)
	}
	if out, status := release(); status != 0 || !strings.Contains(out, "the configuration has a mistake; released is what an announcer left") {
		t.Errorf("status %d, %s", status, out)
	}
	s.waitRoutes(v4c)
	s.waitHeld()
	if _, ok := removed.of("198.51.100.1"); ok {
		t.Error("the stranger's address is gone")
	}
	if out, status := release(); status != 0 || !strings.Contains(out, "no announcer has left anything") {
		t.Errorf("once more: status %d, %s", status, out)
	}
	if err := os.Remove(s.file + ".last"); err != nil {
		t.Fatal(err)
	}
	if out, status := release(); status != 78 || !strings.Contains(out, "is it cut off?") || !strings.Contains(out, "not known either") {
		t.Errorf("with nothing to go by: status %d, %s", status, out)
	}
}

// An announcer that crashed, and whose next one was told another network namespace, has left
// VIPs where only a release looks.
func TestReleaseAtTwoPlaces(t *testing.T) {
	t.Parallel()
	s, elsewhere := newSite(t, gobgpdtest.Config{}), netnstest.New(t)
	was := s.ns
	for _, ns := range []*netnstest.NS{elsewhere, was} {
		s.extra = object{"hold": object{"netns": ns.Path}}
		s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
		s.start()
		s.waitLog("bound", 2)
		s.waitRoutes(v4a, v6a)
		s.crash()
	}
	if s.count("an announcer left something at another place; stop this one and call release") != 1 {
		t.Error("the second announcer says nothing of what the first one left")
	}
	left, err := vip.Open(vip.Config{Interface: "lo", NetNS: elsewhere.Path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { left.Close() })
	held := func() int {
		t.Helper()
		held, err := left.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(held.Own)
	}
	s.waitHeld(v4a, v6a)
	if n := held(); n != 2 {
		t.Fatalf("%d VIPs are left elsewhere", n)
	}
	for _, places := range []int{2, 1} { // what is released is not looked at again
		cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "release", "--config", s.file, "--last", s.file+".last", "--log-format", "json")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), `"stopped: nothing of ours is announced or held"`) != places {
			t.Errorf("%v: %s", err, out)
		}
		s.waitRoutes()
		s.waitHeld()
		if n := held(); n != 0 {
			t.Errorf("%d VIPs are left elsewhere", n)
		}
	}
}

// Two speakers announce what one network namespace holds, since a crashed announcer's next
// one was told another speaker. The host lets go of it once both were told, and not before.
func TestReleaseOfTwoSpeakers(t *testing.T) {
	t.Parallel()
	s, first := newSite(t, gobgpdtest.Config{}), newSite(t, gobgpdtest.Config{})
	for _, speaker := range []*site{first, s} {
		s.extra = object{"speaker": object{"address": speaker.daemon.API, "timeout": "500ms"}}
		s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
		s.start()
		speaker.waitRoutes(v4a, v6a)
		s.waitLog("speaker ready", 1)
		s.crash()
	}
	// A slip in between leaves nothing behind.
	s.extra = object{"speaker": object{"address": "127.0.0.1:1", "timeout": "500ms"}}
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitLog("speaker not ready", 1)
	s.crash()
	s.extra = object{"speaker": object{"address": s.daemon.API, "timeout": "500ms"}}
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitLog("speaker ready", 1)
	s.crash()
	release := func() error {
		t.Helper()
		cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "release", "--config", s.file, "--last", s.file+".last")
		cmd.Stderr = t.Output()
		return cmd.Run()
	}
	first.daemon.Signal(syscall.SIGSTOP)
	err := release()
	first.daemon.Signal(syscall.SIGCONT)
	if err == nil {
		t.Error("a speaker hangs, and that is no error")
	}
	s.waitRoutes()
	s.waitHeld(v4a, v6a)
	first.waitRoutes(v4a, v6a)
	if last, err := os.ReadFile(s.file + ".last"); err != nil || !strings.Contains(string(last), first.daemon.API) {
		t.Errorf("noted is %s, %v", last, err)
	}

	removed, withdrawn := s.removals(), make(chan time.Time, 10)
	watchWithdrawals(t, first.router.API, func(string) { withdrawn <- time.Now() })
	if err := release(); err != nil {
		t.Error(err)
	}
	first.waitRoutes()
	s.waitHeld()
	for range 2 {
		select {
		case at := <-withdrawn:
			if after := removed.wait(v4a).Sub(at); after < drainDelay*3/4 {
				t.Errorf("the address left the host %s after a route, want about %s", after, drainDelay)
			}
		case <-time.After(gobgpdtest.Wait):
			t.Fatal("no withdrawal seen")
		}
	}
	if last, err := os.ReadFile(s.file + ".last"); err != nil || len(last) > 0 {
		t.Errorf("noted is %s, %v", last, err)
	}
}

// What is kept for a release is a configuration itself, and has all that a release needs.
func TestForRelease(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"schema_version": 1, "node_id": "n", "asn": 65001, "vips": []}`,
		`{"schema_version": 1, "node_id": "n", "asn": 4200000000, "drain_delay": "90s", "reconcile_interval": "1500ms", "graceful_shutdown": {"on_health": true, "delay": "1s", "by": "med"},
		  "speaker": {"address": "unix:///run/gobgpd.sock", "timeout": "250ms", "tls": {"ca": "/ca", "cert": "/cert", "key": "/key", "server_name": "s"}},
		  "hold": {"interface": "br0", "netns": "/run/netns/edge", "lifetime": "1h0m1s"}, "vips": []}`,
	} {
		cfg, err := bgp.ParseConfig([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		data, err := cfg.ForRelease()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := bgp.ParseConfig(data); err != nil || !reflect.DeepEqual(again, cfg) {
			t.Errorf("%v: %s\ngot  %+v\nwant %+v", err, data, again, cfg)
		}
	}
	cfg, err := bgp.ParseConfig([]byte(`{"schema_version": 1, "node_id": "n", "asn": 65001, "vips": [{"address": "203.0.113.10", "drain_delay": "30s"}, {"address": "203.0.113.11"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	data, _ := cfg.ForRelease()
	if again, err := bgp.ParseConfig(data); err != nil || again.DrainDelay != 30*time.Second || len(again.VIPs) != 0 {
		t.Errorf("%v: %s", err, data)
	}
}
