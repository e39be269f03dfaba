package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// patience is how long all may take to be well again. A lost session alone takes
// gobgpd ten seconds and more.
const patience = 2 * time.Minute

const faultsCluster = `{
	plasmacloud.cluster = {
		name = "faults";
		nodes.node01 = { role = "control-plane"; ip = "10.0.0.11"; ipv6 = "2001:db8:0:1::11"; services = [ "fiberlb" ]; };
		nodes.node02 = { role = "worker"; ip = "10.0.0.12"; ipv6 = "2001:db8:0:1::12"; services = [ "fiberlb" ]; };
		bootstrap.initialPeers = [ "node01" ];
		bgp.asn = 65001;
		bgp.peers.bird1 = { address = "10.0.0.1"; asn = 65000; timers.hold = 6; timers.connectRetry = 1; };
		bgp.peers.gobgp2 = { address = "10.0.0.2"; asn = 65000; timers.hold = 6; timers.connectRetry = 1; gracefulRestart.enable = false; };
	};
	plasmacloud.network.fiberlbBgp = {
		enable = true;
		drainDelay = "500ms";
		vips = let check = path: [ { type = "http"; url = "http://127.0.0.1:8080/${path}"; interval = "100ms"; timeout = "100ms"; } ]; in [
			"203.0.113.1"
			{ address = "203.0.113.2"; med = 7; communities = [ "65001:1" ]; }
			{ address = "203.0.113.3"; hold = "route"; }
			{ address = "203.0.113.4"; checks = check "a"; }
			{ address = "203.0.113.5"; checks = check "b"; hold = "route"; prepend = 1; }
			"2001:db8:2::1"
			{ address = "2001:db8:2::4"; checks = check "a"; }
		];
	};
}`

// checked is which path of the service a VIP's check asks for.
var checked = map[string]string{"203.0.113.4": "/a", "203.0.113.5": "/b", "2001:db8:2::4": "/a"}

// What somebody else has put on every node, to be found again after each round.
var (
	foreignPath    = netip.MustParsePrefix("198.51.100.1/32")
	foreignAddress = netip.MustParsePrefix("198.51.100.2/32")
	foreignRoute   = netip.MustParsePrefix("198.51.100.3/32")
)

// victim is a node with what was done to it.
type victim struct {
	*labcluster.Node
	speakerStops, announcerStops bool // told to
	frozen                       bool // the announcer
	forgot                       bool // gobgpd, what is in its memory alone

	failed  map[string]bool // by path
	drained map[string]bool // by VIP
}

// faults does harm and looks whether it heals, for as many rounds as go says.
func (s soak) faults(ctx context.Context, more func(round int) bool) (err error) {
	s.say("faults: seed %d", s.seed)
	c, err := s.start(ctx, "faults", faultsCluster)
	defer finish(c, s, &err)
	if err != nil {
		return err
	}
	victims := map[string]*victim{}
	for id, n := range c.Nodes {
		v := &victim{Node: n, failed: map[string]bool{}, drained: map[string]bool{}}
		victims[id] = v
		_, routed := n.IP("route", "add", "local", foreignRoute.String(), "dev", "lo", "table", "local")
		if err := errors.Join(n.Addresses("lo", foreignAddress), routed, v.addForeignPath()); err != nil {
			return err
		}
	}
	if err := settled(c, victims); err != nil {
		return err
	}
	for round := 0; more(round) && ctx.Err() == nil; round++ {
		random := rand.New(rand.NewPCG(s.seed, uint64(round)))
		var story []string
		for range 1 + random.IntN(5) {
			id := slices.Sorted(maps.Keys(victims))[random.IntN(len(victims))]
			what, err := victims[id].harm(random)
			story = append(story, id+" "+what)
			if err != nil {
				return fmt.Errorf("round %d: %s: %w", round, strings.Join(story, ", "), err)
			}
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		}
		for _, v := range victims {
			if err := v.leaveAlone(); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		began := time.Now()
		if err := settled(c, victims); err != nil {
			return fmt.Errorf("seed %d, round %d: %s: %w", s.seed, round, strings.Join(story, ", "), err)
		}
		s.say("round %d: %s; well again after %.1f s", round, strings.Join(story, ", "), time.Since(began).Seconds())
	}
	return nil
}

func (v *victim) addForeignPath() error {
	return lab.Eventually(patience, func() error {
		_, err := v.GoBGP("global", "rib", "add", foreignPath.String(), "origin", "egp")
		return err
	})
}

// harm does one thing, and says which.
func (v *victim) harm(random *rand.Rand) (string, error) {
	signal := func(p *lab.Process, sig syscall.Signal) error {
		if err := p.Signal(sig); err != nil && !ended(p) {
			return err
		}
		return nil
	}
	vips := v.VIPs()
	switch random.IntN(12) {
	case 0:
		v.forgot = true
		return "kill gobgpd", v.Speaker.Kill()
	case 1:
		v.speakerStops, v.forgot = true, true
		return "stop gobgpd", signal(v.Speaker, syscall.SIGTERM)
	case 2:
		return "freeze gobgpd", signal(v.Speaker, syscall.SIGSTOP)
	case 3:
		v.speakerStops, v.forgot = false, true
		return "restart gobgpd", v.RestartSpeaker()
	case 4:
		return "kill announcer", v.Announcer.Kill()
	case 5:
		v.announcerStops = true
		return "stop announcer", signal(v.Announcer, syscall.SIGTERM)
	case 6:
		v.frozen = true
		return "freeze announcer", signal(v.Announcer, syscall.SIGSTOP)
	case 7:
		return "restart announcer", v.restartAnnouncer()
	case 8:
		return "link down", v.Cut(true)
	case 9:
		return "lose packets", v.Lose(20 + random.IntN(60))
	case 10:
		path := []string{"/a", "/b"}[random.IntN(2)]
		v.failed[path] = !v.failed[path]
		return fmt.Sprintf("check %s fails: %t", path, v.failed[path]), v.Fail(path, v.failed[path])
	default:
		// One that does not run, or ends, cannot be told.
		vip := vips[random.IntN(len(vips))].Address.String()
		order := []string{"vip", "drain", vip, "--reason", "soak"}
		if v.drained[vip] {
			order = []string{"vip", "undrain", vip}
		}
		if !ended(v.Announcer) && !v.frozen && !v.announcerStops {
			if _, err := v.Plasmactl(order...); err == nil {
				v.drained[vip] = !v.drained[vip]
				return fmt.Sprintf("drain %s: %t", vip, v.drained[vip]), nil
			}
		}
		return "drain of " + vip + " reaches nobody", nil
	}
}

func ended(p *lab.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// leaveAlone lets everything run again; what failed or was drained stays so.
func (v *victim) leaveAlone() error {
	errs := []error{v.Cut(false), v.Lose(0)}
	_ = v.Speaker.Signal(syscall.SIGCONT) // it may have ended
	_ = v.Announcer.Signal(syscall.SIGCONT)
	v.frozen = false
	// One that was told to stop is not waited for.
	if v.announcerStops || ended(v.Announcer) {
		errs = append(errs, v.restartAnnouncer())
	}
	if v.speakerStops || ended(v.Speaker) {
		errs = append(errs, v.RestartSpeaker())
		v.speakerStops = false
	}
	if v.forgot { // and its owner brings it back
		errs = append(errs, v.addForeignPath())
		v.forgot = false
	}
	return errors.Join(errs...)
}

func (v *victim) restartAnnouncer() error {
	v.announcerStops, v.frozen = false, false
	return errors.Join(v.Announcer.Kill(), v.StartAnnouncer())
}

// settled waits until the routers and the hosts have exactly what they should.
func settled(c *labcluster.Cluster, victims map[string]*victim) error {
	wanted := func(id string, vip netip.Addr) bool {
		v := victims[id]
		return !v.failed[checked[vip.String()]] && !v.drained[vip.String()]
	}
	return lab.Eventually(patience, func() error {
		var errs []error
		for name := range c.Routers {
			routes := c.Wanted(name, wanted)
			for _, v := range victims {
				routes = append(routes, lab.Route{Prefix: foreignPath, NextHop: v.NextHop(foreignPath.Addr()), ASPath: []uint32{65001}, Incomplete: true})
			}
			errs = append(errs, c.Check(name, routes))
		}
		for id, v := range victims {
			errs = append(errs, v.holds(func(vip netip.Addr) bool { return wanted(id, vip) }))
		}
		return errors.Join(errs...)
	})
}

// holds tells how what the host holds differs from what it should.
func (v *victim) holds(wanted func(netip.Addr) bool) error {
	want := []string{"address " + foreignAddress.Addr().String(), "route " + foreignRoute.Addr().String()}
	for _, vip := range v.VIPs() {
		if wanted(vip.Address) {
			want = append(want, vip.Hold+" "+vip.Address.String())
		}
	}
	var got []string
	addresses, err := v.IP("-o", "addr", "show", "dev", "lo")
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(addresses) {
		if p, err := netip.ParsePrefix(field); err == nil && !p.Addr().IsLoopback() {
			got = append(got, "address "+p.Addr().String())
		}
	}
	for _, family := range []string{"-4", "-6"} {
		routes, err := v.IP(family, "route", "show", "table", "local", "type", "local")
		if err != nil {
			return err
		}
		for line := range strings.Lines(routes) {
			// The kernel's own are those of addresses.
			if fields := strings.Fields(line); !strings.Contains(line, "proto kernel") {
				got = append(got, "route "+strings.TrimPrefix(strings.Join(fields[:2], " "), "local "))
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s holds %q, and should hold %q", v.ID, got, want)
	}
	return nil
}
