package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// One VIP in every state that matters, and the steps that follow.
func TestPlan(t *testing.T) {
	addr := netip.MustParseAddr("203.0.113.10")
	prefix := speaker.HostPrefix(addr)
	med := uint32(7)
	path, other := speaker.Path{Prefix: prefix}, speaker.Path{Prefix: prefix, MED: &med}
	const own, foreign, free = "own", "foreign", "free"
	for _, test := range []struct {
		want  string // announce, withdraw, leave; "" is not configured
		path  *speaker.Path
		held  string
		blind string // what could not be read
		steps string
	}{
		{"announce", nil, free, "", "bind announce"},
		{"announce", nil, own, "", "announce"},
		{"announce", nil, foreign, "", "announce"},
		{"announce", &path, own, "", ""},
		{"announce", &path, foreign, "", ""},
		{"announce", &path, free, "", "bind"},
		{"announce", &other, own, "", "announce"},
		{"announce", nil, free, "table", "bind"},
		{"announce", nil, own, "table", ""},
		{"announce", nil, free, "addrs", ""},
		{"withdraw", &path, own, "", "withdraw unwanted"},
		{"withdraw", &path, foreign, "", "withdraw"},
		{"withdraw", nil, own, "", "unwanted"},
		{"withdraw", nil, foreign, "", ""},
		{"withdraw", nil, free, "", ""},
		{"withdraw", &path, free, "addrs", "withdraw"},
		{"leave", &path, own, "", ""},
		{"leave", &other, own, "", ""},
		{"leave", nil, own, "", ""},
		{"leave", nil, free, "", ""},
		{"leave", &path, free, "", "bind"},
		{"leave", &path, free, "addrs", ""},
		{"", &path, own, "", "withdraw unwanted"},
		{"", nil, own, "", "unwanted"},
		{"", nil, foreign, "", ""},
	} {
		wishes := newWishList(1)
		for _, w := range []Want{Announce, Withdraw, Leave} {
			if w.String() == test.want {
				wishes.add(addr, wish{want: w, hold: vip.Address})
				wishes.path = func(*wish) speaker.Path { return path }
			}
		}
		now := live{tableKnown: test.blind != "table", addrsKnown: test.blind != "addrs",
			table: speaker.Table{Own: map[netip.Prefix]speaker.Path{}}, addrs: vip.Held{Own: map[netip.Addr]vip.How{}, Foreign: map[netip.Addr]bool{}}}
		if test.path != nil {
			now.table.Own[prefix] = *test.path
		}
		switch test.held {
		case own:
			now.addrs.Own[addr] = vip.Address
		case foreign:
			now.addrs.Foreign[addr] = true
		}
		s := plan(wishes, now)
		var got []string
		for name, n := range map[string]int{"withdraw": len(s.withdraw), "bind": len(s.bind), "announce": len(s.announce), "unwanted": len(s.unwanted)} {
			if n > 0 {
				got = append(got, name)
			}
		}
		for _, name := range got {
			if !strings.Contains(test.steps, name) || len(got) != len(strings.Fields(test.steps)) {
				t.Errorf("%+v: steps are %v", test, got)
			}
		}
		if len(got) == 0 && test.steps != "" {
			t.Errorf("%+v: no steps", test)
		}
	}
}

func TestHealthOfManyChecks(t *testing.T) {
	for _, test := range []struct {
		states []health.Status
		want   Want
		why    string
	}{
		{nil, Announce, "has no checks"},
		{[]health.Status{health.Up}, Announce, "its check is up"},
		{[]health.Status{health.Up, health.Up}, Announce, "all checks are up"},
		{[]health.Status{health.Up, health.Unknown}, Leave, "check 127.0.0.1:2 is unknown: set"},
		{[]health.Status{health.Unknown, health.Down}, Withdraw, "check 127.0.0.1:2 is down: set"},
		{[]health.Status{health.Down, health.Up}, Withdraw, "check 127.0.0.1:1 is down: set"},
	} {
		var v VIP
		states := map[health.Check]health.Status{}
		for i, s := range test.states {
			v.Checks = append(v.Checks, checkOf(i))
			states[checkOf(i)] = s
		}
		want, _, why := healthOf(&v, func(c health.Check) health.State { return health.State{Status: states[c], Reason: "set"} })
		if want != test.want || why != test.why {
			t.Errorf("%v: %v, %q", test.states, want, why)
		}
	}
}

// A daemon whose policy changes our attributes, or drops our path, gets each path
// once, not in every pass, and is told of.
func TestPolicyIsNotFought(t *testing.T) {
	s := sentPaths{}
	prefix := netip.MustParsePrefix("203.0.113.10/32")
	one, two := uint32(1), uint32(2)
	wanted, made, plain := speaker.Path{Prefix: prefix}, speaker.Path{Prefix: prefix, MED: &one}, speaker.Path{Prefix: prefix}
	changed := speaker.Path{Prefix: prefix, MED: &two}
	for i, step := range []struct {
		path                     speaker.Path
		live                     *speaker.Path
		sent, rewritten, dropped int
	}{
		{wanted, nil, 1, 0, 0},   // new
		{wanted, &made, 0, 1, 0}, // the daemon made something else of it
		{wanted, &made, 0, 0, 0},
		{changed, &made, 1, 0, 0}, // the configuration changed
		{changed, &made, 0, 1, 0},
		{changed, &plain, 1, 0, 0}, // its policy changed, or somebody wrote
		{changed, &plain, 0, 1, 0},
		{changed, nil, 1, 0, 0}, // the daemon restarted
		{changed, nil, 1, 0, 0}, // or again, so soon
		{changed, nil, 1, 0, 1}, // no: it drops the path
		{changed, nil, 1, 0, 0}, // as was told
		{wanted, nil, 1, 0, 0},
		{wanted, nil, 1, 0, 0},
		{wanted, nil, 1, 0, 1},
	} {
		own := map[netip.Prefix]speaker.Path{}
		if step.live != nil {
			own[prefix] = *step.live
		}
		s.observe(own)
		left, _, rewritten := s.filter([]speaker.Path{step.path}, own)
		_, dropped := s.dropped(left, own)
		s.sent(left)
		if len(left) != step.sent || len(rewritten) != step.rewritten || len(dropped) != step.dropped {
			t.Errorf("step %d: sent %d, rewritten %d, dropped %d", i, len(left), len(rewritten), len(dropped))
		}
	}
}

func TestUnbound(t *testing.T) {
	a, b := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	all := []netip.Addr{a, b}
	named := errors.Join(&vip.AddrError{Addr: b, Do: "bind", Err: errors.New("no")})
	for want, err := range map[string]error{
		"[]":                        nil,
		"[203.0.113.2]":             named,
		"[203.0.113.1 203.0.113.2]": errors.New("interface lo is gone"),
	} {
		if got := fmt.Sprint(unbound(err, all)); got != want {
			t.Errorf("%v: %s", err, got)
		}
	}
}

// Status says for each VIP what should be, what is, and why.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(5*time.Second, t.Fatalf)
		cfg := testConfig(2)
		a := New(Options{Config: cfg, Speaker: worldSpeaker{w}, Holder: worldHolder{w}})
		up := health.Up
		a.health = func(health.Check) health.State { return health.State{Status: up, Reason: "answers 503"} }
		show := func() string {
			a.pass(t.Context(), false)
			a.pass(t.Context(), false)
			text := a.Status().String() + "\n"
			for _, v := range a.Status().VIPs {
				text += fmt.Sprintln(v.Address, v.Want, v.Announced, v.Held, v.Foreign != "", v.Draining, v.Why)
			}
			return text
		}
		orphan := netip.MustParseAddr("203.0.113.99")
		w.own[orphan] = vip.Address
		w.others[cfg.VIPs[1].Address] = true
		expect := func(want string) {
			t.Helper()
			if got := show(); got != want {
				t.Errorf("status is\n%swant\n%s", got, want)
			}
		}
		expect("announced 2 of 2 healthy VIPs; speaker: ready\n" +
			"203.0.113.1 announce true true false false its check is up\n" +
			"203.0.113.2 announce true true true false its check is up\n" +
			"203.0.113.99 withdraw false true false true is not in the configuration\n")
		up = health.Down
		expect("announced 0 of 0 healthy VIPs; speaker: ready\n" +
			"203.0.113.1 withdraw false true false true check 127.0.0.1:1 is down: answers 503\n" +
			"203.0.113.2 withdraw false true true false check 127.0.0.1:2 is down: answers 503\n" +
			"203.0.113.99 withdraw false true false true is not in the configuration\n")
		w.away = fmt.Errorf("%w: dial", speaker.ErrGone)
		if s := a.Status(); s.Speaker != "ready" || s.At.IsZero() {
			t.Errorf("before the pass: %+v", s)
		}
		a.pass(t.Context(), false)
		if s := a.Status(); s.Speaker != "speaker is not running: dial" || s.Error == "" {
			t.Errorf("speaker away: %+v", s)
		}
		if got, want := a.Status().String(), "announced unknown of 0 healthy VIPs; speaker: speaker is not running: dial"; got != want {
			t.Errorf("status is %q, want %q", got, want)
		}
	})
}

func TestReloadRefusesWhatItCannotDo(t *testing.T) {
	w := newWorld(time.Second, t.Fatalf)
	a := New(Options{Config: testConfig(1), Speaker: worldSpeaker{w}, Holder: worldHolder{w}})
	defer a.Close()
	for want, change := range map[string]func(*Config){
		`speaker.address changed from "127.0.0.1:50051" to "127.0.0.1:1", which a reload cannot do; restart the announcer`: func(c *Config) { c.Speaker.Address = "127.0.0.1:1" },
		`speaker.timeout changed from "2s" to "3s"`: func(c *Config) { c.Speaker.Timeout = 3 * time.Second },
		"speaker.tls changed from false to true":    func(c *Config) { c.Speaker.TLS.Use = true },
		"asn changed from 65001 to 65002":           func(c *Config) { c.ASN = 65002 },
		`hold.interface changed from "" to "br0"`:   func(c *Config) { c.Hold.Interface = "br0" },
	} {
		cfg := testConfig(2)
		change(cfg)
		if err := a.Reload(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
		if len(a.config().VIPs) != 1 {
			t.Error("a refused configuration is in use")
		}
	}
	// A field that is new needs a restart as well.
	for _, of := range []func(*Config) any{
		func(c *Config) any { return &c.Speaker }, func(c *Config) any { return &c.Speaker.TLS }, func(c *Config) any { return &c.Hold },
	} {
		for i := range reflect.TypeOf(of(testConfig(1))).Elem().NumField() {
			cfg := testConfig(2)
			switch field := reflect.ValueOf(of(cfg)).Elem().Field(i); field.Kind() {
			case reflect.String:
				field.SetString("another")
			case reflect.Bool:
				field.SetBool(true)
			case reflect.Int64:
				field.SetInt(1)
			default:
				continue
			}
			if a.Reload(cfg) == nil {
				t.Errorf("%T: field %d is reloaded", of(cfg), i)
			}
		}
	}
}

// The log says why a VIP goes, those with one reason together, and of many the first few.
func TestReasons(t *testing.T) {
	wishes := newWishList(7)
	var prefixes []netip.Prefix
	for i, v := range testConfig(7).VIPs {
		prefixes = append(prefixes, speaker.HostPrefix(v.Address))
		if i > 0 {
			wishes.add(v.Address, wish{want: Withdraw, why: fmt.Sprintf("check %d is down", (i+1)/2)})
		}
	}
	for want, some := range map[string][]netip.Prefix{
		"is not in the configuration": prefixes[:1],
		"check 1 is down":             prefixes[1:3],
		"203.0.113.1: is not in the configuration; 203.0.113.2 203.0.113.3: check 1 is down":                                           prefixes[:3],
		"203.0.113.2 203.0.113.3: check 1 is down; 203.0.113.4 203.0.113.5: check 2 is down; 203.0.113.6 203.0.113.7: check 3 is down": prefixes[1:],
	} {
		if got := reasons(groundsOf(addrsOf(some), wishes.of)); got != want {
			t.Errorf("reasons are %q, want %q", got, want)
		}
	}
	wishes = newWishList(7)
	for i := range prefixes {
		wishes.add(prefixes[i].Addr(), wish{why: fmt.Sprint("reason ", i)})
	}
	if got := reasons(groundsOf(addrsOf(prefixes), wishes.of)); !strings.HasSuffix(got, "203.0.113.4: reason 3; and 3 reasons more") {
		t.Errorf("reasons are %q", got)
	}
}

// What is not wanted any more is forgotten, also if the daemon never took it.
func TestSentIsForgotten(t *testing.T) {
	s := sentPaths{}
	for _, v := range testConfig(3).VIPs {
		s.sent([]speaker.Path{{Prefix: speaker.HostPrefix(v.Address)}})
	}
	wishes := newWishList(2)
	wishes.add(netip.MustParseAddr("203.0.113.1"), wish{want: Leave})
	wishes.add(netip.MustParseAddr("203.0.113.2"), wish{want: Withdraw})
	if s.keep(wishes); len(s) != 1 {
		t.Errorf("still has %v", s)
	}
}
