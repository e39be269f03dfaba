package bgp_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// What a killed announcer left is taken down by hand: also VIPs that left the file, and
// nothing that is somebody else's. One that runs is left alone.
func TestRelease(t *testing.T) { gobgpdtest.Each(t, testRelease) }

func testRelease(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g})
	release := func() (string, int) {
		t.Helper()
		cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "release", "--config", s.file)
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
}
