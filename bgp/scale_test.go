package bgp_test

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// Ten thousand VIPs with a real daemon and a real kernel: announced, then left in
// peace, pass after pass, and taken down clean. With one generation they are held as
// addresses, with the other one as routes.
func TestTenThousandVIPs(t *testing.T) { gobgpdtest.Each(t, testTenThousandVIPs) }

func testTenThousandVIPs(t *testing.T, g gobgpdtest.Generation) {
	s := newSite(t, gobgpdtest.Config{Generation: g})
	const n = 10_000
	hold := map[gobgpdtest.Generation]string{gobgpdtest.V3: "address", gobgpdtest.V4: "route"}[g]
	vips := make([]object, n)
	a := netip.MustParseAddr("10.0.0.1")
	for i := range vips {
		vips[i] = object{"address": a.String(), "hold": hold, "communities": []string{"65001:100"}}
		a = a.Next()
	}
	s.configure(vips...)
	began := time.Now()
	s.start()
	s.eventually("router has all", func() error {
		if learned := len(s.router.Learned(t)); learned != n {
			return fmt.Errorf("%d routes", learned)
		}
		return nil
	})
	updates, passes := s.router.Updates(t), s.count("pass")
	t.Logf("started until the router has %d: %s, %d UPDATEs", n, time.Since(began).Round(10*time.Millisecond), updates)
	s.waitLog("pass", passes+4)
	var took []time.Duration
	for _, l := range s.logged() {
		if l.Msg == "pass" {
			took = append(took, time.Duration(l.Took).Round(time.Millisecond))
		}
	}
	t.Logf("passes took %v", took)
	if got := s.router.Updates(t) - updates; got != 0 {
		t.Errorf("%d UPDATEs while nothing changes", got)
	}
	began = time.Now()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	t.Logf("stopped after %s, a drain of %s in it", time.Since(began).Round(10*time.Millisecond), drainDelay)
	s.waitRoutes()
	s.waitHeld()
}
