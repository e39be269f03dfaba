package bgp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// plasmactl runs a command of plasmactl against the announcer.
func (s *site) plasmactl(args ...string) (out string, status int) {
	s.t.Helper()
	cmd := exec.Command(gobgpdtest.Build(s.t, "github.com/centra/plasmacloud/cmd/plasmactl"), append(args, "--socket", s.socket())...)
	data, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// An operator drains a VIP and the node, as root of the host: it outlives a crash and a
// reload, and plan says what is to be done.
func TestOperatorDrains(t *testing.T) {
	t.Parallel()
	s := newSite(t, gobgpdtest.Config{})
	expect := func(status int, want string, args ...string) {
		t.Helper()
		if out, got := s.plasmactl(args...); got != status || !strings.Contains(out, want) {
			t.Errorf("plasmactl %v: status %d, want %d:\n%swant %s", args, got, status, out, want)
		}
	}
	expect(1, "no announcer listens at "+s.socket(), "vip", "list")
	s.configure(object{"address": v4a}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitRoutes(v4a, v6a)
	quiet := func() {
		t.Helper()
		s.eventually("nothing is to be done", func() error {
			if out, status := s.plasmactl("plan"); status != 0 || out != "there is nothing to do\n" {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	quiet()
	expect(64, "name one VIP, or --node", "vip", "drain", "--reason", "x")
	expect(64, "--reason: say why", "vip", "drain", v4a)
	expect(1, "reason: is empty", "vip", "drain", v4a, "--reason", " ")
	expect(1, "reason: has something that does not print", "vip", "drain", v4a, "--reason", "a\nb")
	expect(1, "at most 200 are allowed", "vip", "drain", v4a, "--reason", strings.Repeat("x", 201))
	expect(1, v4b+" is no VIP of this node; see plasmactl vip list", "vip", "drain", v4b, "--reason", "x")
	expect(1, `"203.0.113.10/32" is no address of a VIP; want one such as 203.0.113.10, without a prefix length`, "vip", "drain", v4a+"/32", "--reason", "x")
	expect(1, "is not drained by an order of its own", "vip", "undrain", v4a)
	expect(1, "the node is not drained", "vip", "undrain", "--node")

	expect(0, "\noffered to 127.0.1.2\n", "vip", "show", v4a)
	expect(0, "\n"+v6a+" ", "vip", "show", netip.MustParseAddr(v6a).StringExpanded())
	var shown struct {
		Status  struct{ VIPs []struct{ Address string } }
		Offered *struct{ Peers []string }
	}
	show := func() {
		t.Helper()
		out, _ := s.plasmactl("vip", "show", v4a, "-o", "json")
		shown.Offered = nil
		if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Status.VIPs) != 1 || shown.Status.VIPs[0].Address != v4a {
			t.Errorf("%v: %s", err, out)
		}
	}
	if show(); shown.Offered == nil || !slices.Equal(shown.Offered.Peers, []string{"127.0.1.2"}) {
		t.Errorf("as JSON it is offered to %v", shown.Offered)
	}
	removed := s.removals()
	expect(0, v4a+" is drained\n", "vip", "drain", v4a, "--reason", "backend is rebuilt")
	s.waitRoutes(v6a)
	removed.wait(v4a)
	s.eventually("the order is shown", func() error {
		if out, _ := s.plasmactl("vip", "show", v4a); !strings.Contains(out, "withdraw  no         -           none  drained by uid 0: backend is rebuilt\n") {
			return errors.New(out)
		}
		return nil
	})
	if show(); shown.Offered != nil {
		t.Errorf("not announced, and as JSON offered to %v", shown.Offered)
	}
	expect(0, `"cause": "drained"`, "vip", "list", "-o", "json")
	s.crash()
	s.start()
	s.waitLog("speaker ready", 1)
	expect(0, "node01 is drained\n", "vip", "drain", "--node", "--reason", "new kernel")
	s.waitRoutes()
	s.waitHeld()
	s.signal(syscall.SIGHUP)
	s.waitLog("reloaded", 1)
	expect(0, "the node is drained since ", "vip", "list")
	quiet()
	expect(0, "node01 is not drained any more\n", "vip", "undrain", "--node")
	s.waitRoutes(v6a) // the other one has an order of its own
	expect(0, v4a+" is not drained any more\n", "vip", "undrain", v4a)
	s.waitRoutes(v4a, v6a)
	quiet()

	// What another file would mean; this one is not read by the announcer.
	web, running := newService(t), s.file
	s.file += ".next"
	s.configure(object{"address": v4a, "hold": "route", "med": 7}, object{"address": v4b, "checks": []object{web.check()}})
	out, status := s.plasmactl("plan", s.file)
	const want = `withdraw 2001:db8::10: is not in the configuration
bind 203.0.113.10 as route: has no checks
announce 203.0.113.10: has no checks
release 2001:db8::10: is not in the configuration; after the drain
await 203.0.113.11: is new, and announced once its checks are up
plasmactl: 5 steps to do
`
	if status != 2 || out != want {
		t.Errorf("status %d:\n%swant\n%s", status, out, want)
	}
	s.extra = object{"asn": 65009}
	s.configure(object{"address": v4a})
	expect(1, "asn changed from 65001 to 65009, which a reload cannot do", "plan", s.file)
	s.extra = object{"vips": "all"}
	s.configure()
	expect(1, s.file+": vips: is the string", "plan", s.file)
	expect(1, s.file+".none: no such file or directory; write it first, or name another file", "plan", s.file+".none")
	expect(1, "/dev/zero: is larger than 32 MiB", "plan", "/dev/zero")
	s.file = running
	quiet()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	expect(1, "no announcer listens", "plan")
}
