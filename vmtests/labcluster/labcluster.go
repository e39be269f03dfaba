// Package labcluster runs an evaluated cluster in a lab: each node with the BGP
// daemon, the announcer and phone-home that Nix configured for it, each of its
// peers as a real router, a deployer, and a client behind the routers.
//
// Nodes and routers have the addresses that the cluster gives them, and are on one
// Ethernet segment where they reach each other without a hop between. Routers with
// multihop are behind a host that forwards. What a cluster says nothing of is in
// nets of the lab's own: 198.18.0.0/15 and fd00:706c:6173::/48.
package labcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// Programs are the programs that run in a lab.
type Programs struct {
	Bin    string    // folder of PlasmaCloud's
	GoBGPD string    // the speaker
	GoBGP  string    // its command line, for tests; may be empty
	Router lab.GoBGP // of routers of that kind
}

// Built is the folder with what [Build] has built.
type Built string

// Speakers are the gobgpd that a node may have: both generations of the module
// graph, and Debian 12's own, 3.10.
var Speakers = []string{"v3", "v4", "debian"}

// Build builds PlasmaCloud's programs, and gobgpd and gobgp of each generation, all
// without symbols, since to link them is most of the time.
func Build(dir, repo string) (Built, error) {
	builds := map[string][]string{dir: {"./cmd/..."}}
	for _, g := range []string{"v3", "v4"} {
		builds[filepath.Join(dir, g)] = []string{"github.com/osrg/gobgp/" + g + "/cmd/gobgpd", "github.com/osrg/gobgp/" + g + "/cmd/gobgp"}
	}
	for to, packages := range builds {
		build := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o", to + "/"}, packages...)...)
		build.Dir = repo
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %v: %w: %s", packages, err, out)
		}
	}
	return Built(dir), nil
}

// With are the programs with this speaker, one of Speakers.
func (b Built) With(speaker string) Programs {
	folder := "/usr/bin"
	if speaker != "debian" {
		folder = filepath.Join(string(b), speaker)
	}
	return Programs{
		Bin:    string(b),
		GoBGPD: filepath.Join(folder, "gobgpd"),
		GoBGP:  filepath.Join(folder, "gobgp"),
		Router: lab.GoBGPIn(filepath.Join(string(b), "v4")),
	}
}

// Kinds are the routers that there are.
var Kinds = []string{"bird", "frr", "gobgp"}

// Config says what to run.
type Config struct {
	Name     string // of the lab
	Alone    bool   // the lab is to be the only one of its name, see [lab.Claim]
	Programs Programs
	Cluster  *Evaluated
	Password string // of every peer with one; empty: the lab's own

	// Routers are the kinds of routers, by turns in the order of their names. Without
	// any, a name such as bird1 or frr-a says what the router is, and others are BIRD.
	Routers []string

	Deployer bool          // run one, and phone-home on the nodes
	Clients  bool          // run a client behind the routers, which then forward
	Requests time.Duration // how long a client's request may take; 0: two seconds
	AtOnce   int           // how many requests of a client by one router may be under way; it asks less often then. 0: any number

	// Machines are nodes that are machines of their own, with units, by ID: what makes
	// one. The rest of the cluster stays as it is.
	Machines map[string]func(Place) (Control, error)

	// Wired is called when all hosts are joined, before anything runs on them; nil: nobody.
	Wired func(*Cluster) error

	// Looked is called with what each look of [Cluster.Settle] found; nil: nobody.
	Looked func([]Check)
}

// Cluster is a cluster that runs.
type Cluster struct {
	Lab      *lab.Lab
	Nodes    map[string]*Node
	Routers  map[string]*Router // by the name of the peer
	Deployer *Deployer          // nil: none
	Client   *Client            // nil: none

	// Instead is what is not as in the data centre, a line each.
	Instead []string

	cfg      Config
	late     bool // the speaker connects late, see connectsLate
	topology *topology
	transit  *lab.Host
	mu       sync.Mutex // of Instead
}

// Router is a peer of the nodes.
type Router struct {
	lab.Router
	Host *lab.Host
	Kind string // of Kinds
	ASN  uint32

	cluster  *Cluster
	topology *router
	config   lab.RouterConfig
	mu       sync.Mutex // of the embedded one, which Start replaces
}

// Start makes the hosts, and starts everything on them. The cluster is to be
// closed also after an error.
func Start(cfg Config) (*Cluster, error) {
	if cfg.Password == "" {
		cfg.Password = "the-password-of-the-lab"
	}
	c := &Cluster{Nodes: map[string]*Node{}, Routers: map[string]*Router{}, cfg: cfg}
	var err error
	if c.topology, err = newTopology(cfg.Cluster.Manifest, cfg.Cluster.Machines); err != nil {
		return c, err
	}
	c.late = connectsLate(cfg.Programs.GoBGPD)
	if cfg.Alone {
		c.Lab, err = lab.Claim(cfg.Name)
	} else {
		c.Lab, err = lab.New(cfg.Name)
	}
	if err != nil {
		return c, err
	}
	if err := c.wire(); err != nil {
		return c, err
	}
	if cfg.Wired != nil {
		if err := cfg.Wired(c); err != nil {
			return c, err
		}
	}
	return c, c.start()
}

// connectsLate tells whether a gobgpd lets 5 to 9 seconds pass before it first connects
// to a peer, as those before 3.35 do; later ones connect within two. The routers of a
// lab leave connecting to the nodes, since GoBGP is slow to sort out two connections
// that are made at once, and connect to those that would keep everybody waiting. BIRD
// waits for up to 5 seconds too.
func connectsLate(gobgpd string) bool {
	out, err := exec.Command(gobgpd, "--version").Output()
	if err != nil {
		return false // there is none, and no node asks for it; or its start will say why
	}
	var major, minor int
	_, err = fmt.Sscanf(string(out), "gobgpd version %d.%d", &major, &minor)
	return err == nil && (major < 3 || major == 3 && minor < 35)
}

// wire makes the hosts, and joins them.
func (c *Cluster) wire() error {
	for _, id := range c.cfg.Cluster.Manifest.NodeIDs() {
		host, err := c.Lab.Host(id)
		if err != nil {
			return err
		}
		c.Nodes[id] = &Node{
			Host: host, ID: id, Evaluated: c.cfg.Cluster.Manifest.Nodes[id], Machine: c.cfg.Cluster.Machines[id],
			cluster: c, place: c.topology.nodes[id],
		}
		c.Nodes[id].Control = processes{c.Nodes[id]}
	}
	for i, name := range c.RouterNames() {
		if err := c.makeRouter(c.topology.routers[name], kindOf(name, i, c.cfg.Routers)); err != nil {
			return err
		}
	}
	for i, s := range c.topology.sites {
		segment := map[*lab.Host][]netip.Prefix{}
		for _, id := range s.nodes {
			segment[c.Nodes[id].Host] = s.prefixes(c.topology.nodes[id])
		}
		for _, name := range s.routers {
			segment[c.Routers[name].Host] = s.prefixes(c.topology.routers[name].place)
		}
		name := "switch"
		if i > 0 {
			name = fmt.Sprintf("switch%d", i+1)
		}
		bridge, err := c.Lab.Segment(c.topology.own(name), "eth0", segment)
		if err != nil {
			return err
		}
		s.bridge = bridge
	}
	errs := []error{c.wireFar()}
	for _, n := range c.Nodes {
		errs = append(errs, n.prepare())
	}
	if c.cfg.Deployer {
		errs = append(errs, c.wireDeployer())
	}
	if c.cfg.Clients {
		errs = append(errs, c.wireClient())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for id, start := range c.cfg.Machines {
		if err := c.putMachine(id, start); err != nil {
			return err
		}
	}
	return nil
}

// RouterNames are the routers, in order.
func (c *Cluster) RouterNames() []string { return slices.Sorted(maps.Keys(c.topology.routers)) }

// NodeIDs are the nodes, in order.
func (c *Cluster) NodeIDs() []string { return slices.Sorted(maps.Keys(c.Nodes)) }

func (c *Cluster) makeRouter(r *router, kind string) error {
	host, err := c.Lab.Host(r.name)
	if err != nil {
		return err
	}
	if !slices.Contains(Kinds, kind) {
		return fmt.Errorf("router %s: a router is one of %s", r.name, strings.Join(Kinds, ", "))
	}
	made := &Router{Host: host, Kind: kind, ASN: r.asn, cluster: c, topology: r, config: lab.RouterConfig{ASN: r.asn, Passive: true}}
	made.config.RouterID = r.place[0]
	if !made.config.RouterID.IsValid() {
		made.config.RouterID = netip.AddrFrom4([4]byte{198, 18, 255, byte(len(c.Routers) + 1)})
		if r.address.Is4() {
			made.config.RouterID = r.address
		}
	}
	made.config.Forwards = c.cfg.Clients && kind != "gobgp" && !r.far
	for _, p := range r.peers {
		own := c.topology.nodes[p.node][family(r.address)]
		if p.peer.LocalAddress != nil {
			if own, err = netip.ParseAddr(*p.peer.LocalAddress); err != nil {
				return fmt.Errorf("localAddress of %s at %s: %w", r.name, p.node, err)
			}
		}
		if !own.IsValid() {
			return fmt.Errorf("%s peers with %s at %s, and has no address of that family", p.node, r.name, r.address)
		}
		machine := c.cfg.Cluster.Machines[p.node].BGP
		neighbor := lab.Neighbor{Address: own, ASN: machine.ASN, Port: machine.Port, BFD: p.peer.BFD,
			Waits: p.peer.Passive || machine.Backend == "bird" || machine.Backend == "gobgp" && c.late}
		if p.peer.Password {
			neighbor.Password = c.cfg.Password
		}
		if p.peer.Multihop != nil {
			neighbor.Multihop = *p.peer.Multihop
		}
		if p.peer.TTLSecurity != nil {
			neighbor.TTLSecurity = true
		}
		made.config.Neighbors = append(made.config.Neighbors, neighbor)
	}
	c.Routers[r.name] = made
	return nil
}

// RouterKinds are the routers that a lab of the cluster has, by name, with the kinds that
// are wanted, see [Config].
func RouterKinds(e *Evaluated, wanted []string) (map[string]string, error) {
	t, err := newTopology(e.Manifest, e.Machines)
	if err != nil {
		return nil, err
	}
	kinds := map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(t.routers)) {
		kinds[name] = kindOf(name, i, wanted)
	}
	return kinds, nil
}

// kindOf is the kind of the router of that name and number.
func kindOf(name string, number int, wanted []string) string {
	if len(wanted) > 0 {
		return wanted[number%len(wanted)]
	}
	for _, kind := range Kinds {
		if rest, is := strings.CutPrefix(name, kind); is && strings.Trim(strings.SplitN(rest, "-", 2)[0], "0123456789") == "" {
			return kind
		}
	}
	return "bird"
}

// wireFar puts the routers that are far behind transit, with ways there and back.
func (c *Cluster) wireFar() error {
	var far []*router
	for _, name := range c.RouterNames() {
		if r := c.topology.routers[name]; r.far {
			far = append(far, r)
		}
	}
	if len(far) == 0 {
		return nil
	}
	var err error
	if c.transit, err = c.Lab.Host(c.topology.own("transit")); err != nil {
		return err
	}
	errs := []error{setSysctl(c.transit, forwarding...)}
	// Its port on each site, and who asks there for far routers.
	for i, s := range c.topology.sites {
		var own place
		for f := range own {
			if s.nets[f].IsValid() {
				if own[f], err = s.spare(f); err != nil {
					return err
				}
			}
		}
		name := fmt.Sprintf("site%d", i)
		if err := c.Lab.Join(s.bridge, name, map[*lab.Host][]netip.Prefix{c.transit: s.prefixes(own)}); err != nil {
			return err
		}
		for k, r := range far {
			for f, via := range own {
				if !via.IsValid() {
					continue
				}
				to := farPlace(k, r)[f]
				for _, id := range s.nodes {
					errs = append(errs, c.Nodes[id].Batch(fmt.Sprintf("route replace %s/%d via %s", to, to.BitLen(), via)))
				}
			}
		}
	}
	for k, r := range far {
		host, end, gateway := c.Routers[r.name].Host, farLink(k, 1), farLink(k, 2)
		if err := c.Lab.Link(c.transit, gateway.prefixes(), host, end.prefixes()); err != nil {
			return err
		}
		r.place = farPlace(k, r)
		// Its own address is on no link that others could be on.
		own := netip.PrefixFrom(r.address, r.address.BitLen())
		errs = append(errs, host.Addresses("lo", own), c.transit.Batch(fmt.Sprintf("route add %s via %s", own, end[family(r.address)])))
		for f, via := range gateway {
			for _, s := range c.topology.sites {
				if s.nets[f].IsValid() {
					errs = append(errs, host.Batch(fmt.Sprintf("route replace %s via %s src %s", s.nets[f], via, r.place[f])))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// farLink is an end of the link between transit and the k-th router that is far.
func farLink(k, end int) place {
	return place{netip.AddrFrom4([4]byte{198, 18, byte(200 + k), byte(end)}), netip.MustParseAddr(fmt.Sprintf(farV6, k, end))}
}

// farPlace is the addresses of the k-th router that is far.
func farPlace(k int, r *router) place {
	p := farLink(k, 1)
	p[family(r.address)] = r.address
	return p
}

// start starts all daemons.
func (c *Cluster) start() error {
	if err := c.Deployer.Start(); err != nil {
		return err
	}
	if err := InParallel(slices.Collect(maps.Values(c.Routers)), (*Router).Start); err != nil {
		return err
	}
	return InParallel(slices.Collect(maps.Values(c.Nodes)), func(n *Node) error {
		if n.machine {
			return n.Control.Power(true)
		}
		return errors.Join(n.serve(), n.Boot())
	})
}

// atOnce is how many hosts are started side by side: it is mostly waiting.
const atOnce = 8

// InParallel does something with each of a list, some of them side by side.
func InParallel[T any](list []T, do func(T) error) error {
	var wait sync.WaitGroup
	errs := make([]error, len(list))
	places := make(chan struct{}, atOnce)
	for i, one := range list {
		places <- struct{}{}
		wait.Go(func() {
			errs[i] = do(one)
			<-places
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// Start starts the router's daemons.
func (r *Router) Start() error {
	var started lab.Router
	var err error
	switch r.Kind { // one of Kinds, since it was made
	case "bird":
		started, err = r.Host.StartBIRD(r.config)
	case "frr":
		started, err = r.Host.StartFRR(r.config)
	default:
		started, err = r.Host.StartGoBGP(r.cluster.cfg.Programs.Router, r.config)
	}
	if err != nil {
		return fmt.Errorf("router %s: %w", r.Host.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Router = started
	return nil
}

// daemon is what Start has started last, for who does not wait for it; nil: none yet.
func (r *Router) daemon() lab.Router {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Router
}

// Kill ends the router's daemons at once.
func (r *Router) Kill() error { return r.Host.KillAll() }

// Neighbors are the nodes that the router peers with.
func (r *Router) Neighbors() (ids []string) {
	for _, p := range r.topology.peers {
		ids = append(ids, p.node)
	}
	return ids
}

// Reload applies another evaluation to nodes, as a switch to it does, and gives
// the deployer its manifest.
func (c *Cluster) Reload(e *Evaluated, ids ...string) error {
	c.cfg.Cluster = e
	var errs []error
	if c.Deployer != nil && c.Deployer.process != nil {
		errs = append(errs, c.Deployer.WriteManifest(), c.Deployer.process.Signal(syscall.SIGHUP))
	}
	for _, id := range ids {
		if _, still := e.Manifest.Nodes[id]; !still {
			errs = append(errs, fmt.Errorf("the new configuration has no node %s: a lab's nodes stay the same", id))
			continue
		}
		errs = append(errs, c.Nodes[id].Reload(e))
	}
	return errors.Join(errs...)
}

// Log is what all daemons have written, for a test that fails.
func (c *Cluster) Log() string {
	if c.Lab == nil {
		return ""
	}
	var b strings.Builder
	_ = filepath.WalkDir(c.Lab.Dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".log") {
			text, _ := os.ReadFile(path)
			const most = 20_000
			if len(text) > most {
				text = text[len(text)-most:]
			}
			fmt.Fprintf(&b, "== %s\n%s\n", strings.TrimPrefix(path, c.Lab.Dir), text)
		}
		return nil
	})
	return b.String()
}

// Close ends everything and removes it.
func (c *Cluster) Close() error {
	if c.Lab == nil {
		return nil
	}
	c.Client.close()
	for _, n := range c.Nodes {
		n.service.close()
	}
	return c.Lab.Close()
}

// Alive is an error where a program has ended by itself that should run.
func (c *Cluster) Alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, id := range c.NodeIDs() {
		n := c.Nodes[id]
		for _, p := range []*lab.Process{n.Speaker, n.Announcer, n.PhoneHome} {
			if err := died(p); err != nil {
				return fmt.Errorf("%s on %s: %w", p.Name, id, err)
			}
		}
	}
	if c.Deployer != nil {
		if err := died(c.Deployer.process); err != nil {
			return fmt.Errorf("deployer: %w", err)
		}
	}
	return nil
}

func died(p *lab.Process) error {
	if p == nil {
		return nil
	}
	select {
	case <-p.Done():
		lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
		return fmt.Errorf("it ended (%w) and last said: %s", errors.Join(p.Err(), errEnded), strings.Join(lines[max(0, len(lines)-3):], "\n  "))
	default:
		return nil
	}
}

var errEnded = errors.New("nobody stopped it")

// forwarding makes a router of a host.
var forwarding = []string{"net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1", "net/ipv4/fib_multipath_hash_policy=1", "net/ipv6/fib_multipath_hash_policy=1"}

// setSysctl writes settings of the kernel for the host's network, path=value.
func setSysctl(h *lab.Host, settings ...string) error {
	return h.Inside(func() error {
		var errs []error
		for _, s := range settings {
			path, value, _ := strings.Cut(s, "=")
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644))
		}
		return errors.Join(errs...)
	})
}
