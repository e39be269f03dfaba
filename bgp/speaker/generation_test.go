package speaker_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// What a router gets of a path is the same, whichever generation the speaker is.
func TestAttributesAtTheRouter(t *testing.T) { gobgpdtest.Each(t, testAttributesAtTheRouter) }

func testAttributesAtTheRouter(t *testing.T, g gobgpdtest.Generation) {
	for _, test := range []struct {
		name  string
		start func(testing.TB) *gobgpdtest.Router
		asn   uint32
		want  string
	}{
		// A router of our own AS takes no path that has it already: for a loop.
		{"another AS", gobgpdtest.StartRouter, gobgpdtest.RouterASN, `
203.0.113.10/32 via 127.0.1.1 as [65001] communities [] [] med none pref none
203.0.113.11/32 via 10.0.0.11 as [65001] communities [] [] med 0 pref none
203.0.113.12/32 via 127.0.1.1 as [65001] communities [65001:100 65001:200] [65001:1:9 65001:2:0] med none pref none
2001:db8::10/128 via 127.0.1.1 as [65001] communities [0:1] [] med 5 pref none
2001:db8::11/128 via 2001:db8::1 as [65001 65001 65001] communities [] [4294967295:4294967295:4294967295] med 4294967295 pref none
`},
		{"the same AS", gobgpdtest.StartInternalRouter, gobgpdtest.SpeakerASN, `
203.0.113.10/32 via 127.0.1.1 as [] communities [] [] med none pref 100
203.0.113.11/32 via 10.0.0.11 as [] communities [] [] med 0 pref 200
203.0.113.12/32 via 127.0.1.1 as [] communities [65001:100 65001:200] [65001:1:9 65001:2:0] med none pref 0
2001:db8::10/128 via 127.0.1.1 as [] communities [0:1] [] med 5 pref 100
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			router := test.start(t)
			d := gobgpdtest.Start(t, gobgpdtest.Config{Generation: g, Peers: []netip.AddrPort{router.BGP}, PeerASN: test.asn})
			s := d.Client(2 * time.Second)
			waitReady(t, s)
			own := []uint32{gobgpdtest.SpeakerASN, gobgpdtest.SpeakerASN}
			paths := []speaker.Path{
				{Prefix: vip4},
				{Prefix: netip.MustParsePrefix("203.0.113.11/32"), NextHop: netip.MustParseAddr("10.0.0.11"), MED: ptr(0), LocalPref: ptr(200)},
				{Prefix: netip.MustParsePrefix("203.0.113.12/32"), LocalPref: ptr(0),
					Communities:      []speaker.Community{65001<<16 | 200, 65001<<16 | 100, 65001<<16 | 200},
					LargeCommunities: []speaker.LargeCommunity{{Global: 65001, Local1: 2}, {Global: 65001, Local1: 1, Local2: 9}}},
				{Prefix: vip6, MED: ptr(5), Communities: []speaker.Community{1}},
				{Prefix: netip.MustParsePrefix("2001:db8::11/128"), NextHop: netip.MustParseAddr("2001:db8::1"), ASPath: own, MED: ptr(1<<32 - 1), LocalPref: ptr(300),
					LargeCommunities: []speaker.LargeCommunity{{Global: 1<<32 - 1, Local1: 1<<32 - 1, Local2: 1<<32 - 1}}},
			}
			if err := s.Announce(t.Context(), paths); err != nil {
				t.Fatal(err)
			}
			gobgpdtest.Eventually(t, "router has all", func() error {
				if n := len(router.Learned(t)); n != strings.Count(test.want, "via") {
					return fmt.Errorf("has %d", n)
				}
				return nil
			})
			routes, err := router.Routes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := "\n" + describe(routes); got != test.want {
				t.Errorf("router has:%swant:%s", got, test.want)
			}
		})
	}
}

func describe(routes []speaker.Route) string {
	number := func(n *uint32) string {
		if n == nil {
			return "none"
		}
		return fmt.Sprint(*n)
	}
	var b strings.Builder
	for _, r := range routes {
		fmt.Fprintf(&b, "%s via %s as %v communities %v %v med %s pref %s\n",
			r.Prefix, r.NextHop, r.ASPath, r.Communities, r.LargeCommunities, number(r.MED), number(r.LocalPref))
	}
	return b.String()
}

// One client sees a daemon through its upgrade, and back: nothing is configured,
// and nothing but the outage is noticed.
func TestDaemonReplaced(t *testing.T) {
	t.Parallel()
	d := gobgpdtest.Start(t, gobgpdtest.Config{})
	s := d.Client(2 * time.Second)
	for _, g := range []gobgpdtest.Generation{gobgpdtest.V3, gobgpdtest.V4, gobgpdtest.V4, gobgpdtest.V3} {
		d.Replace(g)
		// Whatever comes first finds out, here a list of a daemon that is new to us.
		gobgpdtest.Eventually(t, "daemon is configured", func() error { _, err := s.List(t.Context()); return err })
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if table := list(t, s); len(table.Own)+len(table.Foreign) != 0 {
			t.Fatalf("%s begins with %+v", g, table)
		}
		if err := s.Announce(t.Context(), []speaker.Path{{Prefix: vip4, MED: ptr(1)}, {Prefix: vip6}}); err != nil {
			t.Fatal(err)
		}
		d.AddForeign(t, vip4, "192.0.2.77")
		if table := list(t, s); len(table.Own) != 2 || table.Foreign[vip4] != 1 {
			t.Fatalf("%s has %+v", g, table)
		}
		if routes, err := s.Routes(t.Context()); err != nil || len(routes) != 3 {
			t.Fatalf("%s has routes %+v, %v", g, routes, err)
		}
		ended := make(chan error, 1)
		watching := make(chan struct{}, 100)
		go func() { ended <- s.Watch(t.Context(), func() { watching <- struct{}{} }) }()
		<-watching
		d.Kill()
		if err := <-ended; err == nil {
			t.Fatalf("%s: watch ended without an error", g)
		}
	}
}
