// Package labcluster runs an evaluated cluster in a lab: each node with a real
// gobgpd, the real announcer and a service that its checks ask, and each peer as
// a real router.
//
// The nodes are in 10.0.0.0/24 and 2001:db8:0:1::/64. The routers are there too,
// except for those with multihop, which are in 10.0.9.0/24 and 2001:db8:0:9::/64
// behind a host that forwards. The name of a peer says what it is: bird, frr or
// gobgp, with something behind it or without.
package labcluster

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// Programs is the folder with what [Build] has built.
type Programs string

// Speakers are the gobgpd that a node may have: both generations of the module
// graph, and Debian 12's own, 3.10.
var Speakers = []string{"v3", "v4", "debian"}

// Build builds plasmacloud-announcer, plasmactl, and gobgpd and gobgp of each generation.
func Build(dir, repo string) (Programs, error) {
	builds := map[string][]string{dir: {"./cmd/plasmacloud-announcer", "./cmd/plasmactl"}}
	for _, g := range []string{"v3", "v4"} {
		builds[filepath.Join(dir, g)] = []string{"github.com/osrg/gobgp/" + g + "/cmd/gobgpd", "github.com/osrg/gobgp/" + g + "/cmd/gobgp"}
	}
	for to, packages := range builds {
		build := exec.Command("go", append([]string{"build", "-o", to + "/"}, packages...)...)
		build.Dir = repo
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %v: %w: %s", packages, err, out)
		}
	}
	return Programs(dir), nil
}

// speaker is the folder with a gobgpd and its gobgp.
func (p Programs) speaker(which string) string {
	if which == "debian" {
		return "/usr/bin"
	}
	return filepath.Join(string(p), which)
}

// Config says what to run.
type Config struct {
	Name     string // of the lab
	Repo     string // the checkout
	Programs Programs
	Speaker  string // one of Speakers
	Cluster  *Evaluated
	Password string // of every peer with a passwordFile
}

// Cluster is a cluster that runs.
type Cluster struct {
	Lab     *lab.Lab
	Nodes   map[string]*Node
	Routers map[string]*Router // by the name of the peer

	cfg Config
}

// Router is a peer of the nodes.
type Router struct {
	lab.Router
	Host *lab.Host
	ASN  uint32

	cluster *Cluster
	kind    string
	config  lab.RouterConfig
}

// addresses of a host on a segment: those of both families that end in the same word.
func addresses(one netip.Addr, network int) []netip.Prefix {
	text := one.String()
	last := text[strings.LastIndexAny(text, ".:")+1:]
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%s/24", network, last)),
		netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:%d::%s/64", max(network, 1), last)),
	}
}

// Start makes the hosts, and starts everything on them. The cluster is to be
// closed also after an error.
func Start(cfg Config) (*Cluster, error) {
	l, err := lab.New(cfg.Name)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Lab: l, Nodes: map[string]*Node{}, Routers: map[string]*Router{}, cfg: cfg}
	return c, c.start()
}

func (c *Cluster) start() error {
	segment := map[*lab.Host][]netip.Prefix{}
	far := map[string]netip.Addr{}
	for _, id := range c.cfg.Cluster.Manifest.NodeIDs() {
		node := c.cfg.Cluster.Manifest.Nodes[id]
		host, err := c.Lab.Host(id)
		if err != nil {
			return err
		}
		address := netip.MustParseAddr(node.IP)
		segment[host] = addresses(address, 0)
		c.Nodes[id] = &Node{Host: host, ID: id, Evaluated: node, cluster: c}
		for name, peer := range node.BGP.Peers {
			r, err := c.router(name, peer)
			if err != nil {
				return err
			}
			peerAddress := netip.MustParseAddr(peer.Address)
			hops, multihop := peer.Settings["multihop"]
			if multihop {
				far[name] = peerAddress
			} else {
				segment[r.Host] = addresses(peerAddress, 0)
			}
			neighbor := lab.Neighbor{Address: segment[host][0].Addr(), ASN: node.BGP.ASN}
			if peerAddress.Is6() {
				neighbor.Address = segment[host][1].Addr()
			}
			if _, guarded := peer.Settings["passwordFile"]; guarded {
				neighbor.Password = c.cfg.Password
			}
			if multihop {
				if _, err := fmt.Sscan(fmt.Sprint(hops), &neighbor.Multihop); err != nil {
					return fmt.Errorf("multihop of %s: %w", name, err)
				}
			}
			r.config.Neighbors = append(r.config.Neighbors, neighbor)
		}
	}
	var transit *lab.Host
	if len(far) > 0 {
		var err error
		if transit, err = c.Lab.Host("transit"); err != nil {
			return err
		}
		segment[transit] = addresses(netip.MustParseAddr("10.0.0.254"), 0)
	}
	if err := c.Lab.Switch(segment); err != nil {
		return err
	}
	for name, address := range far {
		if err := c.behind(transit, c.Routers[name].Host, address); err != nil {
			return err
		}
	}
	var errs []error
	for _, r := range c.Routers {
		errs = append(errs, r.Start())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		announcer, err := n.Evaluated.AnnouncerJSON()
		errs = append(errs, err, n.serve(), n.WriteConfig(announcer), n.writeSettings(c.cfg), n.StartSpeaker(), n.StartAnnouncer())
	}
	return errors.Join(errs...)
}

// behind puts a router behind transit, with ways there and back.
func (c *Cluster) behind(transit, router *lab.Host, address netip.Addr) error {
	gateway := addresses(netip.MustParseAddr("10.0.9.254"), 9)
	if err := c.Lab.Link(transit, gateway, router, addresses(address, 9)); err != nil {
		return err
	}
	_, err := transit.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	errs := []error{err}
	way := func(from *lab.Host, to, via netip.Prefix) {
		_, err := from.IP("route", "add", to.Masked().String(), "via", via.Addr().String())
		errs = append(errs, err)
	}
	near := addresses(netip.MustParseAddr("10.0.0.254"), 0)
	for i := range gateway {
		way(router, near[i], gateway[i])
		for _, n := range c.Nodes {
			way(n.Host, gateway[i], near[i])
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) router(name string, peer nixeval.BGPPeer) (*Router, error) {
	if r := c.Routers[name]; r != nil {
		return r, nil
	}
	kind := strings.TrimRight(name, "0123456789")
	if before, _, found := strings.Cut(name, "-"); found {
		kind = before
	}
	host, err := c.Lab.Host(name)
	if err != nil {
		return nil, err
	}
	id := addresses(netip.MustParseAddr(peer.Address), 0)[0].Addr()
	r := &Router{Host: host, ASN: peer.ASN, cluster: c, kind: kind, config: lab.RouterConfig{ASN: peer.ASN, RouterID: id, Passive: true}}
	c.Routers[name] = r
	return r, nil
}

// Start starts the router's daemons.
func (r *Router) Start() (err error) {
	switch r.kind {
	case "bird":
		r.Router, err = r.Host.StartBIRD(r.config)
	case "frr":
		r.Router, err = r.Host.StartFRR(r.config)
	case "gobgp":
		r.Router, err = r.Host.StartGoBGP(r.cluster.cfg.Programs.speaker("v4"), r.config)
	default:
		err = fmt.Errorf("peer %s: a router is bird, frr or gobgp", r.Host.Name)
	}
	return err
}

// Kill ends the router's daemons at once.
func (r *Router) Kill() error { return r.Host.KillAll() }

// Wanted is what the router should have: of each node the VIPs that pick says,
// or all of them if it is nil, as the cluster describes them.
func (c *Cluster) Wanted(router string, pick func(node string, vip netip.Addr) bool) []lab.Route {
	r := c.Routers[router]
	var routes []lab.Route
	for id, n := range c.Nodes {
		internal := r.ASN == n.Evaluated.BGP.ASN
		prepends := true // an internal peer would drop a path with its own AS in it
		for _, peer := range n.Evaluated.BGP.Peers {
			prepends = prepends && peer.ASN != n.Evaluated.BGP.ASN
		}
		for _, v := range n.VIPs() {
			if pick != nil && !pick(id, v.Address) {
				continue
			}
			route := lab.Route{Prefix: netip.PrefixFrom(v.Address, v.Address.BitLen()), NextHop: n.NextHop(v.Address)}
			if v.MED != nil {
				route.MED = *v.MED
			}
			for _, community := range v.Communities {
				if strings.Count(community, ":") == 2 {
					route.Large = append(route.Large, community)
				} else {
					route.Communities = append(route.Communities, community)
				}
			}
			if internal {
				route.LocalPref = 100 // every speaker's default
				if v.LocalPref != nil {
					route.LocalPref = *v.LocalPref
				}
			} else {
				route.ASPath = []uint32{n.Evaluated.BGP.ASN}
				if prepends {
					route.ASPath = slices.Repeat(route.ASPath, 1+v.Prepend)
				}
			}
			routes = append(routes, route)
		}
	}
	return sorted(routes)
}

// sorted puts routes, and the communities of each, which are sets, in one order.
func sorted(routes []lab.Route) []lab.Route {
	slices.SortFunc(routes, func(a, b lab.Route) int {
		return cmp.Or(strings.Compare(a.Prefix.String(), b.Prefix.String()), a.NextHop.Compare(b.NextHop))
	})
	for _, r := range routes {
		slices.Sort(r.Communities)
		slices.Sort(r.Large)
	}
	return routes
}

// Check tells how a router's table differs from what is wanted.
func (c *Cluster) Check(router string, wanted []lab.Route) error {
	routes, err := c.Routers[router].Routes()
	if err != nil {
		return err
	}
	if got, want := show(sorted(routes)), show(sorted(wanted)); got != want {
		return fmt.Errorf("router %s has\n%s\nand should have\n%s", router, got, want)
	}
	return nil
}

func show(routes []lab.Route) string {
	var b strings.Builder
	for _, r := range routes {
		fmt.Fprintf(&b, "  %+v\n", r)
	}
	return b.String()
}

// Log is what all daemons have written, for a test that fails.
func (c *Cluster) Log() string {
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
	for _, n := range c.Nodes {
		n.service.close()
	}
	return c.Lab.Close()
}
