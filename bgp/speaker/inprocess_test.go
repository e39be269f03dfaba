package speaker_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/centra/plasmacloud/bgp/internal/gobgpdtest"
	"github.com/centra/plasmacloud/bgp/speaker"
)

func inProcessConfig() speaker.InProcessConfig {
	return speaker.InProcessConfig{
		APIAddress: "127.0.0.1:0", ASN: 65001, RouterID: gobgpdtest.SpeakerAddr,
		ListenAddresses: []netip.Addr{gobgpdtest.SpeakerAddr},
	}
}

// Two in-process speakers exchange both families, and the router's view has all of it.
func TestRoutes(t *testing.T) {
	router := gobgpdtest.StartRouter(t)
	cfg := inProcessConfig()
	cfg.Peers = []speaker.InProcessPeer{{Address: router.BGP.Addr(), Port: router.BGP.Port(), ASN: gobgpdtest.RouterASN, LocalAddress: gobgpdtest.SpeakerAddr}}
	p, err := speaker.StartInProcess(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	s := gobgpdtest.Client(t, p.APIAddress(), 65001, 2*time.Second)
	waitReady(t, s)
	err = s.Announce(t.Context(), []speaker.Path{
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

func TestInProcessTakenPorts(t *testing.T) {
	l, err := net.Listen("tcp", gobgpdtest.SpeakerAddr.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr)
	for name, change := range map[string]func(*speaker.InProcessConfig){
		"API address " + taken.String(): func(c *speaker.InProcessConfig) { c.APIAddress = taken.String() },
		"BGP: listen tcp":               func(c *speaker.InProcessConfig) { c.ListenPort = taken.Port },
	} {
		cfg := inProcessConfig()
		change(&cfg)
		_, err := speaker.StartInProcess(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// Starting and stopping again and again leaves no goroutine, so no memory, behind.
func TestInProcessFreesEverything(t *testing.T) {
	once := func() {
		ctx, cancel := context.WithCancel(t.Context())
		cfg := inProcessConfig()
		cfg.Peers = []speaker.InProcessPeer{{Address: gobgpdtest.RouterAddr, ASN: 65100, Passive: true}}
		p, err := speaker.StartInProcess(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		cancel() // as good as Stop
		p.Stop()
		// Its ports are free again.
		for _, address := range []string{p.APIAddress(), fmt.Sprintf("%s:%d", gobgpdtest.SpeakerAddr, p.ListenPort())} {
			gobgpdtest.Eventually(t, address+" is free", func() error {
				l, err := net.Listen("tcp", address)
				if err == nil {
					l.Close()
				}
				return err
			})
		}
	}
	once() // what is made only once
	before := runtime.NumGoroutine()
	for range 10 {
		once()
	}
	gobgpdtest.Eventually(t, "goroutines end", func() error {
		if n := runtime.NumGoroutine(); n > before {
			buf := make([]byte, 1<<16)
			return fmt.Errorf("%d goroutines, before %d:\n%s", n, before, buf[:runtime.Stack(buf, true)])
		}
		return nil
	})
}
