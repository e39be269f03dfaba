package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/health"
	bgpspeaker "github.com/centra/plasmacloud/bgp/speaker"
	bgpvip "github.com/centra/plasmacloud/bgp/vip"
)

// fixed is an announcer whose last pass is given.
type fixed struct {
	mu      sync.Mutex
	now     bgp.Status
	events  *bgp.Events
	onPass  func(bgp.Status)
	onProbe func(health.Check, time.Duration, error)
}

func (f *fixed) Status() bgp.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixed) Checks() map[health.Status]int {
	return map[health.Status]int{health.Up: 3, health.Down: 1}
}
func (f *fixed) Events() *bgp.Events                                { return f.events }
func (f *fixed) SpeakerGeneration() int                             { return 4 }
func (f *fixed) RenewalsFailed() uint64                             { return 7 }
func (f *fixed) OnPass(g func(bgp.Status))                          { f.onPass = g }
func (f *fixed) OnProbe(g func(health.Check, time.Duration, error)) { f.onProbe = g }
func (f *fixed) pass(s bgp.Status)                                  { f.mu.Lock(); f.now = s; f.mu.Unlock(); f.onPass(s) }

var aPass = bgp.Status{
	At: time.Unix(1_000_000_000, 0), Took: 3 * time.Millisecond, Interval: 10 * time.Second, Speaker: bgp.Ready, TableRead: true, HostRead: true,
	Peers:      []bgpspeaker.Peer{{Address: netip.MustParseAddr("192.0.2.1"), ASN: 65100, State: "established", Established: true, Since: time.Unix(999_999_999, 0)}},
	Steps:      []bgp.Step{{Do: "bind", Cause: bgp.CauseHealth, Count: 2}, {Do: "withdraw", Cause: bgp.CauseNotConfigured, Count: 1}},
	NotOffered: 5,
	VIPs: []bgp.VIPStatus{
		{Address: netip.MustParseAddr("203.0.113.1"), Want: bgp.Announce, Cause: bgp.CauseHealth, Why: "its check is up", Announced: true, Held: true, As: bgpvip.Address,
			Looked: true, Offered: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Address: netip.MustParseAddr("203.0.113.2"), Want: bgp.Announce, Cause: bgp.CauseNoChecks, Why: "has no checks", Held: true, Foreign: "a path", Trouble: "was sent"},
		{Address: netip.MustParseAddr("2001:db8::1"), Want: bgp.Withdraw, Cause: bgp.CauseNotConfigured, Why: "is not in the configuration", Held: true, As: bgpvip.Route, Draining: true,
			Damping: bgp.DampingState{Penalty: 2890.5, Suppressed: true, ReuseAt: time.Unix(1_000_000_001, 0)}},
	},
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestMetrics(t *testing.T) {
	a := &fixed{}
	web := httptest.NewServer(New(a, "node01", "v1", slog.New(slog.DiscardHandler)).handler)
	defer web.Close()
	// Before the first pass nothing is known, and nothing is made up.
	if _, text := get(t, web.URL+"/metrics"); strings.Contains(text, "vips_") || !strings.Contains(text, "plasmacloud_announcer_speaker_ready 0\n") {
		t.Errorf("before the first pass:\n%s", text)
	}
	a.pass(aPass)
	a.onProbe(health.Check{Kind: health.TCP}, 2*time.Millisecond, nil)
	a.onProbe(health.Check{Kind: health.TCP}, time.Second, errors.New("refused"))
	_, text := get(t, web.URL+"/metrics")
	for _, want := range []string{
		`build_info{go_version="go`, `version="v1"} 1`,
		`pass_duration_seconds_count 1`, `pass_duration_seconds_bucket{le="0.001"} 0`, `pass_duration_seconds_bucket{le="0.004"} 1`, `passes_failed_total 0`, `renewals_failed_total 7`,
		`steps_total{cause="health",step="bind"} 2`, `steps_total{cause="not_configured",step="withdraw"} 1`,
		`check_duration_seconds_count{result="good",type="tcp"} 1`, `check_duration_seconds_count{result="bad",type="tcp"} 1`,
		`checks{status="up"} 3`, `checks{status="down"} 1`, `checks{status="unknown"} 0`,
		`last_pass_timestamp_seconds 1e+09`, `speaker_ready 1`, `reload_refused 0`, `speaker_generation 4`,
		`session{asn="65100",peer="192.0.2.1",state="established"} 1`, `session{asn="65100",peer="192.0.2.1",state="idle"} 0`,
		`vips_desired 2`, `vips_announced 1`, `vips_missing 1`, `vips_not_offered 5`, `vips_held 2`, `vips_draining 1`, `vips_foreign 1`, `vips_suppressed 1`, `vip_penalty{vip="2001:db8::1"} 2890.5`,
		"\ngo_goroutines ", "\nprocess_open_fds ",
	} {
		if !strings.HasPrefix(want, "\n") && !strings.HasPrefix(want, "version") {
			want = "\nplasmacloud_announcer_" + want
		}
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	// What could not be read leaves a gap.
	away := aPass
	away.TableRead, away.Peers, away.Speaker, away.Error, away.Refused = false, nil, "speaker is not running", "speaker is not running", "a mistake"
	a.pass(away)
	_, text = get(t, web.URL+"/metrics")
	for want, there := range map[string]bool{"vips_announced": false, "vips_missing": false, "vips_not_offered": false, "session{": false, "vips_held 2": true, "passes_failed_total 1": true, "speaker_ready 0": true, "reload_refused 1": true} {
		if strings.Contains(text, "plasmacloud_announcer_"+want) != there {
			t.Errorf("%s is there: %v", want, !there)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	problems, err := testutil.GatherAndLint(registry(&fixed{now: aPass}, "v1"))
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestStatus(t *testing.T) {
	a := &fixed{}
	web := httptest.NewServer(New(a, "node01", "v1", slog.New(slog.DiscardHandler)).handler)
	defer web.Close()
	if code, text := get(t, web.URL+"/status"); code != 200 || !strings.Contains(text, `"at":null`) || !strings.Contains(text, `"vips":[]`) {
		t.Errorf("%d %s", code, text)
	}
	a.pass(aPass)
	code, text := get(t, web.URL+"/status")
	const want = `{"node_id":"node01","version":"v1","at":"2001-09-09T01:46:40Z","summary":"announced 1 of 2 healthy VIPs; 5 offered to no peer; speaker: ready","stopping":false,"error":"","reload_refused":"",` +
		`"table_read":true,"host_read":true,"speaker":{"state":"ready","generation":4,"peers":[{"address":"192.0.2.1","asn":65100,"state":"established","since":"2001-09-09T01:46:39Z"}]},"vips":[` +
		`{"address":"203.0.113.1","want":"announce","cause":"health","why":"its check is up","announced":true,"lowered":false,"held":true,"held_as":"address","foreign":false,"conflict":"","draining":false,"damping":null,"trouble":"","offered_to":["192.0.2.1"]},` +
		`{"address":"203.0.113.2","want":"announce","cause":"no_checks","why":"has no checks","announced":false,"lowered":false,"held":true,"held_as":"none","foreign":true,"conflict":"a path","draining":false,"damping":null,"trouble":"was sent","offered_to":null},` +
		`{"address":"2001:db8::1","want":"withdraw","cause":"not_configured","why":"is not in the configuration","announced":false,"lowered":false,"held":true,"held_as":"route","foreign":false,"conflict":"","draining":true,"damping":{"penalty":2890,"suppressed":true,"reuse_at":"2001-09-09T01:46:41Z"},"trouble":"","offered_to":null}]}` + "\n"
	if code != 200 || text != want || !json.Valid([]byte(text)) {
		t.Errorf("%d\n%s\nwant\n%s", code, text, want)
	}
	// Nothing but these, and nothing but asking.
	for path, want := range map[string]int{"/": 404, "/debug/pprof/": 404} {
		if code, _ := get(t, web.URL+path); code != want {
			t.Errorf("%s: %d", path, code)
		}
	}
	response, err := http.Post(web.URL+"/status", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", response.Status)
	}
}

func TestAlive(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	for _, test := range []struct {
		at   time.Time
		text string
	}{
		{time.Time{}, "no pass has ended yet"},
		{now.Add(-39 * time.Second), ""},
		{now.Add(-41 * time.Second), "the last pass ended 41s ago"},
	} {
		if text, ok := alive(bgp.Status{At: test.at, Interval: 10 * time.Second}, now); text != test.text || ok != (test.text == "") {
			t.Errorf("%v: %q, %v", test.at, text, ok)
		}
	}
}

// The address changes under way; one that is taken is tried again, and keeps nothing
// else from working.
func TestListen(t *testing.T) {
	a := &fixed{}
	s := New(a, "node01", "v1", slog.New(slog.DiscardHandler))
	s.retry = 20 * time.Millisecond
	a.pass(aPass)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	served := func(address string, want bool) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			response, err := http.Get("http://" + address + "/healthz")
			if err == nil {
				response.Body.Close()
			}
			if (err == nil) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s served: %v, want %v", address, err == nil, want)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := taken.Addr().(*net.TCPAddr).Port
	one, all := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("0.0.0.0:%d", port)
	taken.Close()
	s.Listen(one)
	served(one, true)
	s.Listen(all) // the same port
	served(fmt.Sprintf("127.0.0.2:%d", port), true)
	s.Listen("")
	served(one, false)
	if taken, err = net.Listen("tcp", one); err != nil {
		t.Fatal(err)
	}
	s.Listen(one)
	s.Listen(all)
	s.Listen(one)
	taken.Close()
	served(one, true)
	cancel()
	<-ended
	served(one, false)
}

// However many ask for the status at once, few answers are in memory.
func TestAtMost(t *testing.T) {
	const n = 3
	under, leave := make(chan struct{}, n), make(chan struct{})
	web := httptest.NewServer(atMost(n, func(http.ResponseWriter, *http.Request) { under <- struct{}{}; <-leave }))
	defer web.Close()
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() {
			if code, _ := get(t, web.URL); code != http.StatusOK {
				t.Errorf("status %d", code)
			}
		})
		<-under
	}
	if code, text := get(t, web.URL); code != http.StatusServiceUnavailable || text != "3 others are asking; try again\n" {
		t.Errorf("one more: %d, %s", code, text)
	}
	close(leave)
	asking.Wait()
}
