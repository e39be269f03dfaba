package labcluster

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/centra/plasmacloud/nixeval"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// site is one Ethernet segment: nodes and the routers that they reach without a hop between.
type site struct {
	nodes   []string // ids
	routers []string // names
	nets    [2]netip.Prefix
	used    map[netip.Addr]bool
	bridge  *lab.Host // its switch
}

// place is where a host is on a site: an address of each family, or an invalid one.
type place [2]netip.Addr

// prefixes are its addresses with the usual lengths of their networks.
func (p place) prefixes() (list []netip.Prefix) {
	for f, a := range p {
		list = append(list, netip.PrefixFrom(a, usual[f]))
	}
	return list
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// router is a peer of nodes that is no node itself, as the nodes describe it.
type router struct {
	name    string
	address netip.Addr
	asn     uint32
	far     bool // behind other hops
	peers   []peering
	place   place
	site    *site // nil for one that is far
}

// peering is what a node says of a router.
type peering struct {
	node string
	name string // of the peer, at the node
	peer nixeval.SpeakerPeer
}

// topology is who is where, found out from the nodes' addresses and peers.
type topology struct {
	sites   []*site
	routers map[string]*router
	nodes   map[string]place
	siteOf  map[string]*site // of nodes
	paired  [][2]string      // nodes that peer with each other
}

// The nets of the lab's own, for what a cluster says nothing of (RFC 2544, RFC 4193).
var (
	mgmtNet   = netip.MustParsePrefix("198.19.0.0/16") // deployer and nodes
	clientNet = "198.18.%d.%d"                         // behind the routers
	clientV6  = "fd00:706c:6173:%x::%d"
	farV6     = "fd00:706c:6173:f%02x::%d"
)

// widest is the shortest prefix that a site may have, by family; hosts further
// apart are in no one network.
var widest, usual = [2]int{8, 16}, [2]int{24, 64}

func newTopology(m *nixeval.Manifest, machines map[string]nixeval.Machine) (*topology, error) {
	t := &topology{routers: map[string]*router{}, nodes: map[string]place{}, siteOf: map[string]*site{}}
	owner := map[netip.Addr]string{}
	for _, id := range m.NodeIDs() {
		var p place
		texts := []string{m.Nodes[id].IP}
		if v6 := m.Nodes[id].IPv6; v6 != nil {
			texts = append(texts, *v6)
		}
		for _, text := range texts {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("address of %s: %w", id, err)
			}
			if before := owner[a]; before != "" {
				return nil, fmt.Errorf("%s and %s both have the address %s", before, id, a)
			}
			p[family(a)], owner[a] = a, id
		}
		t.nodes[id] = p
	}
	if err := t.findRouters(m.NodeIDs(), machines, owner); err != nil {
		return nil, err
	}
	t.findSites(m.NodeIDs())
	var errs []error
	for _, s := range t.sites {
		errs = append(errs, t.number(s))
	}
	return t, errors.Join(errs...)
}

// findRouters makes one of each address that nodes peer with.
func (t *topology) findRouters(ids []string, machines map[string]nixeval.Machine, owner map[netip.Addr]string) error {
	byAddress := map[netip.Addr]*router{}
	for _, id := range ids {
		bgp := machines[id].BGP
		if bgp == nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(bgp.Peers)) {
			peer := bgp.Peers[name]
			if peer.Address == nil {
				return fmt.Errorf("peer %s of %s has no address, only an interface: the lab joins nodes and routers by addresses", name, id)
			}
			address, err := netip.ParseAddr(*peer.Address)
			if err != nil {
				return fmt.Errorf("address of peer %s of %s: %w", name, id, err)
			}
			if other := owner[address]; other != "" {
				if peer.Multihop == nil {
					t.paired = append(t.paired, [2]string{id, other})
				}
				continue
			}
			r := byAddress[address]
			if r == nil {
				r = &router{name: t.free(name), address: address, asn: peer.ASN, far: true}
				byAddress[address], t.routers[r.name] = r, r
			}
			if r.asn != peer.ASN {
				return fmt.Errorf("peer %s of %s: %s is of AS %d here, and of AS %d for another node", name, id, address, peer.ASN, r.asn)
			}
			if peer.Multihop == nil {
				r.far = false
			}
			r.peers = append(r.peers, peering{id, name, peer})
		}
	}
	return nil
}

// free is the name, or one like it where another router has that.
func (t *topology) free(name string) string {
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t\n:", r) {
			return '-'
		}
		return r
	}, name)
	free := name
	for i := 2; t.taken(free); i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	return free
}

func (t *topology) taken(name string) bool {
	return t.routers[name] != nil || t.nodes[name] != (place{})
}

// own is what a host of the lab's own is called: the name, unless a node or a router has it.
func (t *topology) own(name string) string {
	for t.taken(name) {
		name = "lab-" + name
	}
	return name
}

// findSites puts together who must see each other on one link: nodes of one usual
// network, nodes that peer, and routers that are not far with their nodes.
func (t *topology) findSites(ids []string) {
	leader := map[string]string{}
	var find func(string) string
	find = func(x string) string {
		if leader[x] == x {
			return x
		}
		return find(leader[x])
	}
	union := func(a, b string) { leader[find(a)] = find(b) }
	for _, id := range ids {
		leader["node "+id] = "node " + id
	}
	first := map[netip.Prefix]string{}
	for _, id := range ids {
		for f, a := range t.nodes[id] {
			if !a.IsValid() {
				continue
			}
			network := netip.PrefixFrom(a, usual[f]).Masked()
			if first[network] == "" {
				first[network] = id
			}
			union("node "+id, "node "+first[network])
		}
	}
	for _, pair := range t.paired {
		union("node "+pair[0], "node "+pair[1])
	}
	for _, r := range t.routers {
		// One that says multihop and is in a node's own network is on the link.
		if r.far && first[netip.PrefixFrom(r.address, usual[family(r.address)]).Masked()] != "" {
			r.far = false
		}
		if r.far {
			continue
		}
		leader["router "+r.name] = "router " + r.name
		for _, p := range r.peers {
			union("router "+r.name, "node "+p.node)
		}
	}
	sites := map[string]*site{}
	for _, key := range slices.Sorted(maps.Keys(leader)) {
		s := sites[find(key)]
		if s == nil {
			s = &site{used: map[netip.Addr]bool{}}
			sites[find(key)] = s
			t.sites = append(t.sites, s)
		}
		kind, name, _ := strings.Cut(key, " ")
		if kind == "node" {
			s.nodes = append(s.nodes, name)
			t.siteOf[name] = s
		} else {
			s.routers = append(s.routers, name)
			t.routers[name].site = s
		}
	}
}

// number finds the networks of a site, and gives its routers the addresses that
// nobody has named.
func (t *topology) number(s *site) error {
	var all [2][]netip.Addr
	for _, id := range s.nodes {
		for f, a := range t.nodes[id] {
			if a.IsValid() {
				all[f] = append(all[f], a)
			}
		}
	}
	for _, name := range s.routers {
		r := t.routers[name]
		f := family(r.address)
		r.place[f] = r.address
		all[f] = append(all[f], r.address)
	}
	for f, addresses := range all {
		if len(addresses) == 0 {
			continue
		}
		network, err := covering(addresses, usual[f])
		if err != nil || network.Bits() < widest[f] {
			return s.tooWide(t, f, addresses[0])
		}
		s.nets[f] = network
		for _, a := range addresses {
			s.used[a] = true
		}
	}
	for _, name := range s.routers {
		r := t.routers[name]
		for f := range r.place {
			if !r.place[f].IsValid() && s.nets[f].IsValid() {
				a, err := s.spare(f)
				if err != nil {
					return err
				}
				r.place[f] = a
			}
		}
	}
	return nil
}

// tooWide says who of a site is in no one network with its first address.
func (s *site) tooWide(t *topology, f int, first netip.Addr) error {
	fits := func(a netip.Addr) bool {
		network, err := covering([]netip.Addr{first, a}, usual[f])
		return err == nil && network.Bits() >= widest[f]
	}
	for _, name := range s.routers {
		r := t.routers[name]
		if a := r.place[f]; a.IsValid() && !fits(a) {
			by := r.peers[0]
			return fmt.Errorf("bgp.peers.%s.address of node %s: no network has both %s and %s, so they are not on one link; set bgp.peers.%s.multihop if routers are between them, or correct the address",
				by.name, by.node, a, first, by.name)
		}
	}
	for _, id := range s.nodes {
		if a := t.nodes[id][f]; a.IsValid() && !fits(a) {
			return fmt.Errorf("address of node %s: no network has both %s and %s, and they peer with each other or with one router without multihop", id, a, first)
		}
	}
	return fmt.Errorf("no network has all addresses of the nodes %s and of their routers", strings.Join(s.nodes, ", "))
}

// covering is the network of at most so many bits that has all the addresses, none
// of which is its first or its last one.
func covering(addresses []netip.Addr, bits int) (netip.Prefix, error) {
	for ; bits > 0; bits-- {
		network := netip.PrefixFrom(addresses[0], bits).Masked()
		fits := true
		for _, a := range addresses {
			fits = fits && network.Contains(a) && a != network.Addr() && a != last(network)
		}
		if fits {
			return network, nil
		}
	}
	return netip.Prefix{}, errors.New("no network has all addresses")
}

// last is the highest address of a network.
func last(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

// spare is an address of the site that nobody has, from the end of the network.
func (s *site) spare(f int) (netip.Addr, error) {
	a := last(s.nets[f]).Prev()
	for range 1 << 16 {
		if !s.nets[f].Contains(a) || a == s.nets[f].Addr() {
			break
		}
		if !s.used[a] {
			s.used[a] = true
			return a, nil
		}
		a = a.Prev()
	}
	return netip.Addr{}, fmt.Errorf("no address is left in %s", s.nets[f])
}

// prefixes are a place's addresses with the length of the site's networks.
func (s *site) prefixes(p place) []netip.Prefix {
	var list []netip.Prefix
	for f, a := range p {
		if a.IsValid() {
			list = append(list, netip.PrefixFrom(a, s.nets[f].Bits()))
		}
	}
	return list
}
