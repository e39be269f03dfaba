package labcluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// originated is a route that a node should announce.
type originated struct {
	prefix      netip.Prefix
	nextHop     netip.Addr
	communities []string
	med         *uint32
	localPref   *uint32
	prepend     int
	peers       []string // by the names that the node gives them; nil: all
	vip         bool
}

// originates is what the node should announce while all is well.
func (n *Node) originates() []originated {
	bgp := n.Machine.BGP
	if bgp == nil {
		return nil
	}
	var list []originated
	if n.Machine.Announcer != nil {
		internal := false // such a peer would drop a path with its own AS in it
		for _, peer := range bgp.Peers {
			internal = internal || peer.ASN == bgp.ASN
		}
		for _, v := range n.VIPs() {
			o := originated{prefix: netip.PrefixFrom(v.Address, v.Address.BitLen()), nextHop: n.NextHop(v.Address),
				communities: v.Communities, med: v.MED, localPref: v.LocalPref, prepend: v.Prepend, vip: true}
			if internal {
				o.prepend = 0
			}
			list = append(list, o)
		}
	}
	if !bgp.Injects {
		return list
	}
	for _, a := range bgp.Announcements {
		prefix, err := netip.ParsePrefix(a.Prefix)
		if err != nil || a.Aggregate { // that hangs on what others announce
			continue
		}
		o := originated{prefix: prefix, communities: a.Communities, med: a.MED, localPref: a.LocalPref, prepend: a.Prepend, peers: a.Peers}
		if o.nextHop = n.NextHop(prefix.Addr()); a.NextHop != nil {
			o.nextHop, _ = netip.ParseAddr(*a.NextHop)
		}
		list = append(list, o)
	}
	return list
}

// peerName is what the node calls the router.
func (n *Node) peer(r *Router) (name string, peer nixeval.SpeakerPeer) {
	for name, peer := range n.Machine.BGP.Peers {
		if peer.Address == nil {
			continue
		}
		if a, err := netip.ParseAddr(*peer.Address); err == nil && a == r.topology.address {
			return name, peer
		}
	}
	return "", peer
}

// hears tells whether the router should have the route of the node. What a peer's
// own export rules make of routes is not known here; see [Router.Unknown].
func (o originated) hears(name string, peer nixeval.SpeakerPeer) bool {
	if o.peers != nil && !slices.Contains(o.peers, name) {
		return false
	}
	return slices.Contains(peer.Families, []string{"ipv4", "ipv6"}[family(o.prefix.Addr())])
}

// exports is what the peer is sent: "all", "none", or "rules".
func exports(peer nixeval.SpeakerPeer) string {
	var word string
	if len(peer.Export) == 0 {
		return "all"
	}
	if json.Unmarshal(peer.Export, &word) != nil {
		return "rules"
	}
	return word
}

// Unknown are the nodes whose announcements to the router cannot be told, since
// they have export rules for it.
func (r *Router) Unknown() (ids []string) {
	for _, p := range r.topology.peers {
		if exports(p.peer) == "rules" {
			ids = append(ids, p.node)
		}
	}
	return ids
}

// Wanted is what the router should have: of each node the VIPs that pick says,
// or all of them if it is nil, as the cluster describes them, and all that is no VIP.
func (c *Cluster) Wanted(router string, pick func(node string, vip netip.Addr) bool) []lab.Route {
	r := c.Routers[router]
	var routes []lab.Route
	for _, id := range r.Neighbors() {
		n := c.Nodes[id]
		name, peer := n.peer(r)
		if name == "" || exports(peer) != "all" {
			continue
		}
		for _, o := range n.originates() {
			if !o.hears(name, peer) || o.vip && pick != nil && !pick(id, o.prefix.Addr()) {
				continue
			}
			routes = append(routes, o.at(r, n.Machine.BGP.ASN))
		}
	}
	return sorted(routes)
}

// Of RFC 7999 and RFC 1997.
const blackhole, noExport = "65535:666", "65535:65281"

// at is the route as the router has it.
func (o originated) at(r *Router, asn uint32) lab.Route {
	route := lab.Route{Prefix: o.prefix, NextHop: o.nextHop}
	if o.med != nil {
		route.MED = *o.med
	}
	for _, community := range o.communities {
		if strings.Count(community, ":") == 2 {
			route.Large = append(route.Large, community)
		} else {
			route.Communities = append(route.Communities, community)
		}
	}
	if r.ASN != asn {
		route.ASPath = slices.Repeat([]uint32{asn}, 1+o.prepend)
		if r.Kind == "frr" && slices.Contains(route.Communities, blackhole) && !slices.Contains(route.Communities, noExport) {
			route.Communities = append(route.Communities, noExport) // by itself, as RFC 7999 wants (section 3.2)
		}
		return route
	}
	route.LocalPref = 100 // every speaker's default
	if o.localPref != nil {
		route.LocalPref = *o.localPref
	}
	return route
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
