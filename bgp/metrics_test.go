package bgp_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
)

// What the announcer says of itself over HTTP is what is, with either generation; a
// reload moves it to another port.
func TestMetrics(t *testing.T) { gobgpdtest.Each(t, testMetrics) }

func testMetrics(t *testing.T, g gobgpdtest.Generation) {
	s, web := newSite(t, gobgpdtest.Config{Generation: g}), newService(t)
	configure := func() (address string) {
		address = fmt.Sprintf("127.0.0.1:%d", gobgpdtest.FreePort(t, "127.0.0.1"))
		s.extra = object{"metrics": object{"listen": address}}
		s.configure(object{"address": v4a, "checks": []object{web.check()}}, object{"address": v6a, "hold": "route"})
		return address
	}
	address := configure()
	s.start()
	s.waitRoutes(v4a, v6a)
	s.waitAnswer(address, "/healthz", "ok\n")
	s.waitMetrics(address,
		"plasmacloud_announcer_speaker_generation "+strings.TrimPrefix(string(g), "v")+"\n",
		`plasmacloud_announcer_session{asn="65100",peer="127.0.1.2",state="established"} 1`,
		"plasmacloud_announcer_vips_announced 2\n", "plasmacloud_announcer_vips_held 2\n",
		`plasmacloud_announcer_steps_total{cause="health",step="announce"} 1`,
		`plasmacloud_announcer_steps_total{cause="no_checks",step="bind"} 1`,
		`plasmacloud_announcer_check_duration_seconds_count{result="good",type="http"}`)
	web.bad.Store(true)
	s.waitHeld(v6a)
	s.waitMetrics(address, "plasmacloud_announcer_vips_desired 1\n", `plasmacloud_announcer_steps_total{cause="health",step="release"} 1`)
	s.waitAnswer(address, "/status", `"held_as":"route"`, `answers 503`)
	other := configure()
	s.signal(syscall.SIGHUP)
	s.waitAnswer(other, "/healthz", "ok\n")
	s.eventually("the old address is left", func() error {
		if response, err := http.Get("http://" + address + "/healthz"); err == nil {
			response.Body.Close()
			return fmt.Errorf("still served: %s", response.Status)
		}
		return nil
	})
}

// waitMetrics returns when the metrics at address have wants.
func (s *site) waitMetrics(address string, wants ...string) {
	s.t.Helper()
	s.waitAnswer(address, "/metrics", wants...)
}

// waitAnswer returns when the answer of address has wants.
func (s *site) waitAnswer(address, path string, wants ...string) {
	s.t.Helper()
	s.eventually(path+" is right", func() error {
		response, err := http.Get("http://" + address + path)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		for _, want := range wants {
			if !strings.Contains(string(body), want) {
				return fmt.Errorf("no %s in %s", want, body)
			}
		}
		return err
	})
}
