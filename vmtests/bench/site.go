package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

var (
	nodeAddress   = netip.MustParseAddr("10.0.0.11")
	routerAddress = netip.MustParseAddr("10.0.0.1")
)

const (
	nodeASN   = 65001
	routerASN = 65000
)

// vipAddress is the VIP of that number, of the 131,072 in 198.18.0.0/15.
func vipAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)})
}

// contestant is one way to have a node announce VIPs.
type contestant struct {
	name  string
	ours  bool
	start func(b *bench, node *lab.Host, vips int) (announcing, error) // starts it with so many VIPs in its configuration
}

// announcing is a contestant that runs.
type announcing interface {
	// prepare writes down that it is to announce so many VIPs, and no more; apply tells it.
	prepare(vips int) (apply func() error, err error)
	// flip has it withdraw, or announce again, the first VIP; began is when it could know.
	flip(up bool) (began time.Time, err error)
	kill() error  // what speaks BGP
	start() error // it again
	parts() []part
}

// part is one program of a contestant.
type part struct {
	name    string
	process *lab.Process
}

// usage is what a process and all that it started take.
type usage struct {
	resident, peak int64 // bytes of memory
	cpu            time.Duration
}

func (u usage) plus(v usage) usage {
	return usage{u.resident + v.resident, u.peak + v.peak, u.cpu + v.cpu}
}

// usageOf reads it from /proc.
func usageOf(p *lab.Process) (m usage, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return m, err
	}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(after)
		if len(fields) < 13 || fields[2] != strconv.Itoa(p.PID()) {
			continue // of another group
		}
		for _, ticks := range fields[11:13] { // of user and system, a hundred a second
			n, _ := strconv.ParseInt(ticks, 10, 64)
			m.cpu += time.Duration(n) * 10 * time.Millisecond
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			switch name {
			case "VmRSS":
				m.resident += kib << 10
			case "VmHWM":
				m.peak += kib << 10
			}
		}
	}
	if m.resident == 0 {
		return m, fmt.Errorf("%s does not run", p.Name)
	}
	return m, nil
}

// site is a node and a router, on one link.
type site struct {
	lab          *lab.Lab
	node, router *lab.Host
}

func newSite() (*site, error) {
	l, err := lab.New("bench")
	if err != nil {
		return nil, err
	}
	s := &site{lab: l}
	if s.node, err = l.Host("node"); err == nil {
		s.router, err = l.Host("router")
	}
	if err == nil {
		err = l.Link(s.node, []netip.Prefix{netip.PrefixFrom(nodeAddress, 24)}, s.router, []netip.Prefix{netip.PrefixFrom(routerAddress, 24)})
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// withBIRD runs f with a node and a BIRD router that waits for the node to connect.
func withBIRD(f func(node *lab.Host, router lab.Router) error) (err error) {
	s, err := newSite()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lab.Close()) }()
	router, err := s.router.StartBIRD(lab.RouterConfig{
		ASN: routerASN, RouterID: routerAddress, Passive: true,
		Neighbors: []lab.Neighbor{{Address: nodeAddress, ASN: nodeASN}},
	})
	if err != nil {
		return err
	}
	return f(s.node, router)
}

// hasRoutes waits until the router has so many routes.
func hasRoutes(ctx context.Context, router lab.Router, want int) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		got, err := router.Count()
		if err == nil && got == want {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(err, fmt.Errorf("the router has %d of %d routes", got, want))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}
