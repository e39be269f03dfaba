package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/centra/plasmacloud/bgp/health"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/bgp/vip"
)

// world models a BGP daemon and a host, and complains when the announcer does
// what would lose a packet or touch what is not its own.
type world struct {
	mu       sync.Mutex // guards all of it where Run is under way
	complain func(format string, args ...any)
	delay    time.Duration // of the drain, of those that are not in delays
	delays   map[netip.Addr]time.Duration

	away     error                         // what Ready says; nil: ready
	table    map[netip.Prefix]speaker.Path // ours
	foreign  map[netip.Prefix]int
	session  bool                       // with the one router, under graceful restart
	internal bool                       // the router is of our own AS
	routes   map[netip.Prefix]bool      // ours, as the router has them; without a session as they were
	lost     map[netip.Prefix]time.Time // when the router last lost a route
	filtered map[netip.Prefix]bool      // by an export policy

	graceful time.Duration              // between the two steps out of what leaves gracefully
	leaves   func(netip.Addr) bool      // gracefully
	lowered  map[netip.Prefix]time.Time // when it was given the lowest preference

	own         map[netip.Addr]vip.How
	others      map[netip.Addr]bool
	holds       map[netip.Addr]vip.How // how each configured VIP is to be held
	bindFails   map[netip.Addr]bool
	listFails   bool
	noInterface bool // nothing is held, and nothing can be

	announced, withdrawn, bound, released int
	hurrying                              bool // what is withdrawn may not be announced any more
}

func newWorld(delay time.Duration, complain func(string, ...any)) *world {
	return &world{
		complain: complain, delay: delay, delays: map[netip.Addr]time.Duration{},
		table: map[netip.Prefix]speaker.Path{}, foreign: map[netip.Prefix]int{},
		session: true, routes: map[netip.Prefix]bool{}, lost: map[netip.Prefix]time.Time{},
		leaves: func(netip.Addr) bool { return false }, lowered: map[netip.Prefix]time.Time{},
		own: map[netip.Addr]vip.How{}, holds: map[netip.Addr]vip.How{}, others: map[netip.Addr]bool{}, bindFails: map[netip.Addr]bool{},
	}
}

// changes is how many steps the announcer has taken so far.
func (w *world) changes() int { return w.announced + w.withdrawn + w.bound + w.released }

// restartSpeaker is a crash of the daemon: what clients added is gone, and so is the session.
func (w *world) restartSpeaker() {
	w.session = false
	clear(w.table)
	clear(w.lowered)
	clear(w.foreign)
}

// setSession opens or closes the session with the router.
func (w *world) setSession(up bool) {
	w.session = up && !w.dead()
	w.tell()
}

// tell makes the router's routes those of the table, if there is a session.
func (w *world) tell() {
	if !w.session {
		return
	}
	for p := range w.routes {
		if _, ok := w.table[p]; !ok {
			delete(w.routes, p)
			w.lost[p] = time.Now()
		}
	}
	for p := range w.table {
		w.routes[p] = true
	}
}

// held reports whether traffic for a is taken by somebody.
func (w *world) held(a netip.Addr) bool {
	how, configured := w.holds[a]
	return w.own[a] != vip.None || w.others[a] || configured && how == vip.None
}

func (w *world) dead() bool {
	return errors.Is(w.away, speaker.ErrGone) || errors.Is(w.away, speaker.ErrNotConfigured)
}

// worldSpeaker and worldHolder are the announcer's two views of a world.
type (
	worldSpeaker struct{ *world }
	worldHolder  struct{ *world }
)

var (
	_ speaker.Speaker = worldSpeaker{}
	_ vip.Holder      = worldHolder{}
)

func (w worldSpeaker) Ready(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.away
}

func (w worldSpeaker) answers() error {
	if errors.Is(w.away, speaker.ErrWrongASN) {
		return nil
	}
	return w.away
}

func (w worldSpeaker) List(context.Context) (speaker.Table, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.answers(); err != nil {
		return speaker.Table{}, err
	}
	return speaker.Table{Own: maps.Clone(w.table), Foreign: maps.Clone(w.foreign)}, nil
}

func (w worldSpeaker) Announce(_ context.Context, paths []speaker.Path) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away != nil {
		w.complain("announce to a speaker that is not ready")
		return w.away
	}
	for _, p := range paths {
		if a := p.Prefix.Addr(); !w.held(a) {
			w.complain("%s announced before it is held", p.Prefix)
		}
		if w.internal && len(p.ASPath) > 0 {
			w.complain("%s announced with path %v to a router of our own AS", p.Prefix, p.ASPath)
		}
		if w.table[p.Prefix].Equal(p) {
			w.complain("%s announced again, unchanged", p.Prefix)
		}
		w.table[p.Prefix] = p
		if delete(w.lowered, p.Prefix); isLowered(p) {
			w.lowered[p.Prefix] = time.Now()
		}
		w.announced++
	}
	w.tell()
	return nil
}

// isLowered reports whether p has the lowest preference, in one way or the other.
func isLowered(p speaker.Path) bool {
	return slices.Contains(p.Communities, speaker.GracefulShutdown) || p.MED != nil && *p.MED == math.MaxUint32
}

func (w worldSpeaker) Withdraw(_ context.Context, prefixes []netip.Prefix) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.answers(); err != nil {
		return err
	}
	for _, p := range prefixes {
		if _, ok := w.table[p]; !ok && !w.hurrying {
			w.complain("%s withdrawn, which is not announced", p)
		}
		since, lowered := w.lowered[p]
		if a := p.Addr(); w.leaves(a) && w.away == nil && w.session && w.held(a) && !(lowered && time.Since(since) >= w.graceful) {
			w.complain("%s withdrawn, and not lowered for %s before", p, w.graceful)
		}
		delete(w.table, p)
		delete(w.lowered, p)
		w.withdrawn++
	}
	w.tell()
	return nil
}

func (w worldSpeaker) Advertised(_ context.Context, prefixes []netip.Prefix) (speaker.Advertised, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	to := map[netip.Prefix][]netip.Addr{}
	routers := []netip.Addr{theRouter}
	for _, p := range prefixes {
		if w.routes[p] && !w.filtered[p] {
			to[p] = routers
		}
	}
	n := 0
	if w.session {
		n = 1
	}
	return speaker.Advertised{Established: n, To: to}, w.answers()
}

func (w worldSpeaker) Filtered(context.Context, []netip.Prefix) (map[netip.Prefix]bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.filtered), w.answers()
}

var theRouter = netip.MustParseAddr("192.0.2.1")

func (w worldSpeaker) Peers(context.Context) ([]speaker.Peer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asn := uint32(65100)
	if w.internal {
		asn = 65001
	}
	return []speaker.Peer{{Address: theRouter, ASN: asn, Established: w.session}}, w.answers()
}

func (w worldSpeaker) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}

func (w worldSpeaker) Generation() int { return 4 }

func (w worldSpeaker) Close() error { return nil }

func (w worldHolder) List(context.Context) (vip.Held, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listFails {
		return vip.Held{}, errors.New("dump interrupted")
	}
	return vip.Held{Own: maps.Clone(w.own), Foreign: maps.Clone(w.others)}, nil
}

func (w worldHolder) Bind(_ context.Context, how vip.How, addrs []netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		switch {
		case w.noInterface, w.bindFails[a]:
			errs = append(errs, &vip.AddrError{Addr: a, Do: "bind", Err: errors.New("no buffer space")})
		case w.own[a]&how == 0 && !(how == vip.Address && w.others[a]):
			w.own[a] |= how
			w.bound++
		}
	}
	return errors.Join(errs...)
}

func (w worldHolder) Release(_ context.Context, how vip.How, addrs []netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		if w.own[a]&how == 0 {
			continue
		}
		w.released++
		if w.own[a] &^= how; w.own[a] == vip.None {
			delete(w.own, a)
		}
		if w.held(a) {
			continue // moved
		}
		p := speaker.HostPrefix(a)
		if _, announced := w.table[p]; announced {
			w.complain("%s released while it is announced", a)
		}
		if w.routes[p] {
			w.complain("%s released while the router has its route", a)
		}
		delay, ok := w.delays[a]
		if !ok {
			delay = w.delay
		}
		if lost, ok := w.lost[p]; ok && time.Since(lost) < delay {
			w.complain("%s released %s after the router lost its route, before the drain of %s", a, time.Since(lost), delay)
		}
	}
	return nil
}

func (w worldHolder) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}

func (w worldHolder) Renew(context.Context) (time.Duration, error) { return 0, nil }

func (w worldHolder) Close() error { return nil }

// testConfig has n VIPs, each with one check of its own.
func testConfig(n int) *Config {
	cfg := &Config{
		NodeID: "node01", ASN: 65001, Speaker: SpeakerConfig{Address: "127.0.0.1:50051", Timeout: 2 * time.Second},
		DrainDelay: 5 * time.Second, ReconcileInterval: 10 * time.Second,
	}
	a := netip.MustParseAddr("203.0.113.1")
	for i := range n {
		cfg.VIPs = append(cfg.VIPs, VIP{Address: a, DrainDelay: cfg.DrainDelay, Hold: vip.Address, Checks: []health.Check{checkOf(i)}})
		a = a.Next()
	}
	return cfg
}

func checkOf(i int) health.Check {
	return health.Check{Kind: health.TCP, Address: fmt.Sprintf("127.0.0.1:%d", i+1), Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1}
}
