package bgp_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// The interface goes, and the VIPs with it: no route may lead here until it is
// back, and a stop without it is clean.
func TestInterfaceGone(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	bridge := func() *netlink.Bridge {
		return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7"}}
	}
	if err := s.ns.Handle.LinkAdd(bridge()); err != nil {
		t.Fatal(err)
	}
	s.extra = object{"hold": object{"interface": "br7", "netns": s.ns.Path}}
	s.configure(object{"address": v4a}, object{"address": v6a})
	s.start()
	s.waitRoutes(v4a, v6a)
	for i := range 2 {
		if err := s.ns.Handle.LinkDel(bridge()); err != nil {
			t.Fatal(err)
		}
		s.waitRoutes()
		if i == 1 {
			break
		}
		if err := s.ns.Handle.LinkAdd(bridge()); err != nil {
			t.Fatal(err)
		}
		s.waitRoutes(v4a, v6a)
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// Nobody reads the log any more: that ends nothing.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	s.configure(object{"address": v4a})
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmacloud-announcer"), "run", "--config", s.file, "--control", "", "--drains", s.file+".drains")
	cmd.Stderr = writer
	if err := gobgpdtest.StartProcess(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	writer.Close()
	s.waitRoutes(v4a)
	reader.Close()
	s.configure(object{"address": v4b})
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.waitRoutes(v4b)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	s.waitHeld()
}
