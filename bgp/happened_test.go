package bgp_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/metrics"
	"github.com/centra/plasmacloud/bgp/vip"
)

// All that happens to a VIP is told in its order, with why, to who asks and to who follows.
func TestEvents(t *testing.T) {
	t.Parallel()
	s, web := newSite(t, gobgpdtest.Config{}), newService(t)
	s.configure(object{"address": v4a, "checks": []object{web.check()}}, object{"address": v6a, "hold": "route"})
	s.start()
	s.waitRoutes(v4a, v6a)
	follow := exec.Command(gobgpdtest.Build(t, "github.com/centra/plasmacloud/cmd/plasmactl"), "vip", "events", "--follow", "-o", "json", "--socket", s.socket())
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := gobgpdtest.StartProcess(follow); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = follow.Process.Kill() })
	var mu sync.Mutex
	var followed []metrics.Event
	ended := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e metrics.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				mu.Lock()
				followed = append(followed, e)
				mu.Unlock()
			}
		}
		close(ended)
	}()
	// happened waits until the events about vip are these; "" is about no VIP.
	happened := func(vip string, want ...string) {
		t.Helper()
		s.eventually(fmt.Sprintf("events of %q", vip), func() error {
			mu.Lock()
			defer mu.Unlock()
			var got []string
			for _, e := range followed {
				if e.VIP == vip && e.Event != "pass_failed" && e.Event != "pass_works" {
					got = append(got, strings.TrimSpace(e.Event+" "+e.Cause))
				}
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("are %q, want %q", got, want)
			}
			return nil
		})
	}
	up := []string{"check_up", "wanted health", "held health", "announced health"}
	happened(v4a, up...)
	happened(v6a, "wanted no_checks", "held no_checks", "announced no_checks")
	happened("", "started", "speaker_ready", "session_up")

	web.bad.Store(true)
	s.waitHeld(v6a)
	a := append(up, "check_down", "unwanted health", "withdrawn health", "released health")
	happened(v4a, a...)

	// Somebody else has an address for the VIP, and takes it away again.
	link, stranger := s.ns.Link(t, "lo"), &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(v4a).To4(), Mask: net.CIDRMask(32, 32)}}
	addForeign(t, s, v4a)
	a = append(a, "conflict")
	happened(v4a, a...)
	if err := s.ns.Handle.AddrDel(link, stranger); err != nil {
		t.Fatal(err)
	}
	happened(v4a, append(a, "conflict_over")...)

	// Somebody takes what is ours, which is put back.
	if err := s.holder.Release(t.Context(), vip.Route, []netip.Addr{netip.MustParseAddr(v6a)}); err != nil {
		t.Fatal(err)
	}
	b := []string{"wanted no_checks", "held no_checks", "announced no_checks", "gone", "held no_checks"}
	happened(v6a, b...)

	if out, status := s.plasmactl("vip", "drain", v6a, "--reason", "new kernel"); status != 0 {
		t.Fatal(out)
	}
	s.waitHeld()
	if out, status := s.plasmactl("vip", "undrain", v6a); status != 0 {
		t.Fatal(out)
	}
	s.waitRoutes(v6a)
	b = append(b, "drained drained", "unwanted drained", "withdrawn drained", "released drained", "undrained drained", "wanted no_checks", "held no_checks", "announced no_checks")
	happened(v6a, b...)

	s.daemon.Kill()
	s.waitLog("speaker not ready", 1)
	s.daemon.Run()
	s.waitRoutes(v6a)
	s.signal(syscall.SIGHUP)
	s.waitLog("reloaded", 1)
	s.eventually("the outage is told of", func() error {
		mu.Lock()
		defer mu.Unlock()
		var got []string
		for _, e := range followed {
			if e.VIP == "" {
				got = append(got, e.Event)
			}
		}
		for _, want := range []string{"speaker_not_ready", "reloaded"} {
			if !slices.Contains(got, want) {
				return fmt.Errorf("no %s in %q", want, got)
			}
		}
		if got := got[slices.Index(got, "speaker_not_ready"):]; !slices.Contains(got, "speaker_ready") || !slices.Contains(got, "session_up") {
			return fmt.Errorf("not over in %q", got)
		}
		return nil
	})

	// For people, and from the middle on.
	text, status := s.plasmactl("vip", "events", "--vip", v4a)
	for _, want := range []string{
		"  203.0.113.10       check_down         " + web.URL + "/healthz: answers 503, want 2xx\n",
		"  203.0.113.10       withdrawn          check " + web.URL + "/healthz is down: answers 503, want 2xx\n",
		"  203.0.113.10       conflict           the address of somebody else's is left alone\n",
	} {
		if status != 0 || !strings.Contains(text, want) || strings.Contains(text, v6a) {
			t.Errorf("status %d, no %s in\n%s", status, want, text)
		}
	}
	mu.Lock()
	first := followed[len(up)].Cursor
	mu.Unlock()
	text, status = s.plasmactl("vip", "events", "--after", first)
	if status != 0 || strings.Contains(text, "started") || !strings.Contains(text, "  2001:db8::10       drained            uid 0: new kernel\n") || !strings.Contains(text, "  127.0.1.2          session_up         AS 65100, established\n") {
		t.Errorf("status %d\n%s", status, text)
	}
	for args, want := range map[string]int{"--after=x": 1, "--vip=x": 64, "--vip=::ffff:203.0.113.10": 1} {
		if text, status := s.plasmactl("vip", "events", args); status != want {
			t.Errorf("%s: status %d, %s", args, status, text)
		}
	}
	if err := follow.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := follow.Wait(); err != nil {
		t.Errorf("followed until a signal: %v", err)
	}
}
