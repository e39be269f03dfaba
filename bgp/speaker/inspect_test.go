package speaker_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
)

// A router's view has all that is announced to it, of both families.
func TestRoutes(t *testing.T) {
	router := gobgpdtest.StartRouter(t)
	s := gobgpdtest.Start(t, gobgpdtest.Config{Peers: []netip.AddrPort{router.BGP}}).Client(2 * time.Second)
	waitReady(t, s)
	err := s.Announce(t.Context(), []speaker.Path{
		{Prefix: vip4, MED: ptr(7), Communities: []speaker.Community{65001<<16 | 100}, LargeCommunities: []speaker.LargeCommunity{{Global: 1, Local1: 2, Local2: 3}}},
		{Prefix: vip6, NextHop: netip.MustParseAddr("2001:db8::1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	gobgpdtest.Eventually(t, "router has both", func() error {
		if n := len(router.Learned(t)); n != 2 {
			return fmt.Errorf("has %d", n)
		}
		return nil
	})
	routes, err := router.Routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range routes {
		med := "-"
		if r.MED != nil {
			med = fmt.Sprint(*r.MED)
		}
		got += fmt.Sprintln(r.Prefix, r.NextHop, r.ASPath, r.Communities, r.LargeCommunities, med, r.Peer, r.Best)
	}
	want := "203.0.113.10/32 127.0.1.1 [65001] [65001:100] [1:2:3] 7 127.0.1.1 true\n" +
		"2001:db8::10/128 2001:db8::1 [65001] [] [] - 127.0.1.1 true\n"
	if got != want {
		t.Errorf("router's view:\n%swant:\n%s", got, want)
	}
	peers, err := router.Peers(t.Context())
	if err != nil || len(peers) != 1 || !peers[0].Established || peers[0].State != "established" || peers[0].ASN != 65001 || peers[0].Received.Updates < 2 {
		t.Errorf("peers are %+v, %v", peers, err)
	}
}
