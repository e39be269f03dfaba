package bgp

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/bgp/internal/netnstest"
)

// One announcer for a speaker, one for a network namespace; the end of the first frees both.
func TestOneAnnouncerForEachSpeakerAndNamespace(t *testing.T) {
	config := func(socket, netns string) *Config {
		cfg := testConfig(1)
		cfg.Speaker.Address = "unix://" + socket
		cfg.Hold = Hold{Interface: "lo", NetNS: netns}
		return cfg
	}
	one, two := netnstest.New(t).Path, netnstest.New(t).Path
	dir := t.TempDir()
	first, err := Open(config(dir+"/a", one), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	by := fmt.Sprintf(" (process %d of uid %d)", os.Getpid(), os.Geteuid())
	for want, cfg := range map[string]*Config{
		"another announcer runs here, with speaker unix://" + dir + "/a; stop it first":              config(dir+"/a", two),
		"another announcer runs here, with VIPs in network namespace " + one + "; stop it first":     config(dir+"/b", one),
		"another announcer runs here, with VIPs in network namespace " + one + "; stop it first\x00": config(dir+"/c", one+"/"),
	} {
		if a, err := Open(cfg, nil); err == nil || err.Error() != strings.TrimRight(want, "\x00")+by {
			t.Errorf("error is %v, want %s", err, want)
			if err == nil {
				a.Close()
			}
		}
	}
	other, err := Open(config(dir+"/b", two), nil)
	if err != nil {
		t.Fatal("a refused announcer has kept something: ", err)
	}
	other.Close()
	first.Close()
	again, err := Open(config(dir+"/a", one), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
