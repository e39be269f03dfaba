package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
	"github.com/centra/plasmacloud/vmtests/lab"
)

const manyVIPs = 10_000

var (
	nodeAddress   = netip.MustParseAddr("10.0.0.11")
	routerAddress = netip.MustParseAddr("10.0.0.1")
)

// benchAnnounce measures from the configuration change to the table of a BIRD
// router. The peers put the same 10,000 prefixes into the same router: BIRD by
// `birdc configure`, and bare GoBGP by one batch of paths over its API.
func benchAnnounce(ctx context.Context, b *bench) ([]figure, error) {
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.dir, "./cmd/plasmacloud-announcer", "github.com/osrg/gobgp/v3/cmd/gobgpd").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	announcer, err := median(b.runs, func() (time.Duration, error) { return b.toRouter(ctx, b.byAnnouncer) })
	if err != nil {
		return nil, fmt.Errorf("announcer: %w", err)
	}
	unheld, err := median(b.runs, func() (time.Duration, error) {
		return b.toRouter(ctx, b.byLibrary)
	})
	if err != nil {
		return nil, fmt.Errorf("announcer without addresses: %w", err)
	}
	batch, err := median(b.runs, func() (time.Duration, error) {
		return b.toRouter(ctx, b.byBatch)
	})
	if err != nil {
		return nil, fmt.Errorf("GoBGP: %w", err)
	}
	bird, err := median(b.runs, func() (time.Duration, error) { return b.toRouter(ctx, byBIRD) })
	if err != nil {
		return nil, fmt.Errorf("BIRD: %w", err)
	}
	kernel, err := median(b.runs, addressesByIP)
	if err != nil {
		return nil, fmt.Errorf("ip -batch: %w", err)
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/1e6) }
	ratio := func(a, b time.Duration) float64 { return float64(a) / float64(b) }
	return []figure{
		{"announcer, addresses held first", ms(announcer), "the time of ip -batch and bare GoBGP", ratio(announcer, kernel+batch)},
		{"announcer, no addresses", ms(unheld), "the time of bare GoBGP", ratio(unheld, batch)},
		{"announcer, no addresses", ms(unheld), "the time of BIRD's configure", ratio(unheld, bird)},
		{"bare GoBGP v3, AddPathStream", ms(batch), "", 0},
		{"BIRD's configure", ms(bird), "", 0},
		{"ip -batch, the addresses alone", ms(kernel), "", 0},
	}, nil
}

// addressesByIP is the kernel's share: iproute2 adds the same addresses.
func addressesByIP() (took time.Duration, err error) {
	l, err := lab.New("bench")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	host, err := l.Host("node")
	if err != nil {
		return 0, err
	}
	var batch strings.Builder
	for i := range manyVIPs {
		fmt.Fprintf(&batch, "addr add %s/32 dev lo\n", vipAddress(i))
	}
	file := filepath.Join(host.Dir, "addresses")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		return 0, err
	}
	begin := time.Now()
	_, err = host.IP("-batch", file)
	return time.Since(begin), err
}

// toRouter makes a node and a BIRD router, lets prepare bring the node to the
// point before the change, makes the change, and returns the time until the
// router has all.
func (b *bench) toRouter(ctx context.Context, prepare func(context.Context, *lab.Host) (func() error, error)) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := lab.New("bench")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	node, err := l.Host("node")
	if err != nil {
		return 0, err
	}
	host, err := l.Host("router")
	if err != nil {
		return 0, err
	}
	if err := l.Link(node, []netip.Prefix{netip.PrefixFrom(nodeAddress, 24)}, host, []netip.Prefix{netip.PrefixFrom(routerAddress, 24)}); err != nil {
		return 0, err
	}
	router, err := host.StartBIRD(lab.RouterConfig{
		ASN: 65000, RouterID: routerAddress, Passive: true,
		Neighbors: []lab.Neighbor{{Address: nodeAddress, ASN: 65001}},
	})
	if err != nil {
		return 0, err
	}
	change, err := prepare(ctx, node)
	if err != nil {
		return 0, err
	}
	// The first prefix is there before, so that the session's own time is not measured.
	if err := hasRoutes(host, router, 1); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := change(); err != nil {
		return 0, err
	}
	err = hasRoutes(host, router, manyVIPs)
	return time.Since(begin), err
}

func hasRoutes(host *lab.Host, router lab.Router, want int) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		got, err := router.Count()
		if err == nil && got == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has %d of %d routes (%w)", host.Name, got, want, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func vipAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }

func (b *bench) startSpeaker(h *lab.Host) error {
	file := filepath.Join(h.Dir, "gobgpd.toml")
	text := fmt.Sprintf("[global.config]\nas = 65001\nrouter-id = %q\nport = -1\n[[neighbors]]\n[neighbors.config]\nneighbor-address = %q\npeer-as = 65000\n[neighbors.timers.config]\nconnect-retry = 1\n", nodeAddress, routerAddress)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := h.Start("gobgpd", filepath.Join(b.dir, "gobgpd"), "-f", file, "--api-hosts", "unix://"+filepath.Join(h.Dir, "api"))
	return err
}

func announcerConfig(h *lab.Host, vips int) []byte {
	var list []map[string]any
	for i := range vips {
		list = append(list, map[string]any{"address": vipAddress(i).String(), "communities": []string{}, "med": nil, "local_pref": nil, "checks": []any{}})
	}
	text, err := json.Marshal(map[string]any{
		"schema_version": 1, "node_id": "node01", "asn": 65001,
		"speaker":     map[string]any{"address": "unix://" + filepath.Join(h.Dir, "api"), "timeout": "5s"},
		"next_hop":    map[string]any{"ipv4": nil, "ipv6": nil},
		"hold":        map[string]any{"interface": "lo", "netns": ""},
		"drain_delay": "1s", "reconcile_interval": "10s", "vips": list,
	})
	if err != nil {
		panic(err) // of our own literals
	}
	return text
}

// byAnnouncer is the real program: SIGHUP after its file went from 1 VIP to all.
func (b *bench) byAnnouncer(_ context.Context, h *lab.Host) (func() error, error) {
	file := filepath.Join(h.Dir, "announcer.json")
	if err := errors.Join(b.startSpeaker(h), os.WriteFile(file, announcerConfig(h, 1), 0o600)); err != nil {
		return nil, err
	}
	p, err := h.Start("announcer", filepath.Join(b.dir, "plasmacloud-announcer"), "run", "--config", file, "--control", "", "--drains", filepath.Join(h.Dir, "drains.json"))
	if err != nil {
		return nil, err
	}
	return func() error {
		return errors.Join(os.WriteFile(file, announcerConfig(h, manyVIPs), 0o600), p.Signal(syscall.SIGHUP))
	}, nil
}

// memory holds addresses in a map: the kernel's time to add 10,000 is not what
// is measured here.
type memory struct {
	mu   sync.Mutex
	held map[netip.Addr]vip.How
}

func newMemory() *memory { return &memory{held: map[netip.Addr]vip.How{}} }

func (m *memory) List(context.Context) (vip.Held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return vip.Held{Own: maps.Clone(m.held)}, nil
}

func (m *memory) Bind(_ context.Context, how vip.How, addrs []netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addrs {
		m.held[a] |= how
	}
	return nil
}

func (m *memory) Release(_ context.Context, _ vip.How, addrs []netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addrs {
		delete(m.held, a)
	}
	return nil
}

func (m *memory) Watch(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }
func (m *memory) Close() error                              { return nil }

// byLibrary is the announcer's loop in this process, with no address held.
func (b *bench) byLibrary(ctx context.Context, h *lab.Host) (func() error, error) {
	if err := b.startSpeaker(h); err != nil {
		return nil, err
	}
	one, err := bgp.ParseConfig(announcerConfig(h, 1))
	if err != nil {
		return nil, err
	}
	all, err := bgp.ParseConfig(announcerConfig(h, manyVIPs))
	if err != nil {
		return nil, err
	}
	s, err := b.dial(h)
	if err != nil {
		return nil, err
	}
	a := bgp.New(bgp.Options{Config: one, Speaker: s, Holder: newMemory(), Logger: quiet})
	go func() { _ = a.Run(ctx) }()
	return func() error { return a.Reload(all) }, nil
}

func (b *bench) dial(h *lab.Host) (*speaker.GoBGP, error) {
	return speaker.Dial(speaker.Config{Address: "unix://" + filepath.Join(h.Dir, "api"), ASN: 65001, Timeout: 5 * time.Second})
}

// byBatch sends all paths at once and reconciles nothing.
func (b *bench) byBatch(ctx context.Context, h *lab.Host) (func() error, error) {
	if err := b.startSpeaker(h); err != nil {
		return nil, err
	}
	s, err := b.dial(h)
	if err != nil {
		return nil, err
	}
	var paths []speaker.Path
	for i := range manyVIPs {
		paths = append(paths, speaker.Path{Prefix: speaker.HostPrefix(vipAddress(i))})
	}
	err = lab.Eventually(10*time.Second, func() error { return s.Ready(ctx) })
	if err == nil {
		err = s.Announce(ctx, paths[:1])
	}
	return func() error { return s.Announce(ctx, paths[1:]) }, err
}

// byBIRD lets BIRD on the node originate the prefixes as static routes.
func byBIRD(_ context.Context, h *lab.Host) (func() error, error) {
	file, socket := filepath.Join(h.Dir, "bird.conf"), filepath.Join(h.Dir, "bird.ctl")
	write := func(routes int) error {
		var conf strings.Builder
		fmt.Fprintf(&conf, "router id %s;\nprotocol device {}\nprotocol static {\n ipv4;\n", nodeAddress)
		for i := range routes {
			fmt.Fprintf(&conf, " route %s/32 blackhole;\n", vipAddress(i))
		}
		fmt.Fprintf(&conf, "}\nprotocol bgp { local as 65001; neighbor %s as 65000; ipv4 { import none; export all; next hop self; }; }\n", routerAddress)
		return os.WriteFile(file, []byte(conf.String()), 0o600)
	}
	if err := write(1); err != nil {
		return nil, err
	}
	if _, err := h.Start("bird", "bird", "-f", "-c", file, "-s", socket); err != nil {
		return nil, err
	}
	return func() error {
		if err := write(manyVIPs); err != nil {
			return err
		}
		_, err := h.Run("birdc", "-s", socket, "configure")
		return err
	}, nil
}
