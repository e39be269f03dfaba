package vmtests

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/lab"
)

// expected is what the example's cluster has to come to, by expect.nix.
type expected struct {
	ASN      uint32 `json:"asn"`
	NextHops map[string]struct {
		IPv4 netip.Addr `json:"ipv4"`
		IPv6 netip.Addr `json:"ipv6"`
	} `json:"nextHops"`
	VIPs map[string]struct {
		Address     netip.Addr `json:"address"`
		Communities []string   `json:"communities"`
	} `json:"vips"`
	After shownNode `json:"after"`
}

// shownNode is what plasmactl node show says of a node.
type shownNode struct {
	State        string `json:"state"`
	Config       string `json:"config"`
	Reachability string `json:"reachability"`
}

func expectations(t *testing.T) (e expected) {
	t.Helper()
	nix(t, "import ./expect.nix", &e)
	return e
}

// route is a VIP of the node, as a router of another AS has it.
func (e expected) route(t *testing.T, node, vip string) lab.Route {
	t.Helper()
	hop, known := e.NextHops[node]
	require.True(t, known, "expect.nix has no node %s", node)
	v, known := e.VIPs[vip]
	require.True(t, known, "expect.nix has no VIP %s", vip)
	r := lab.Route{Prefix: netip.PrefixFrom(v.Address, v.Address.BitLen()), NextHop: hop.IPv6, ASPath: []uint32{e.ASN}}
	if v.Address.Is4() {
		r.NextHop = hop.IPv4
	}
	if len(v.Communities) > 0 {
		r.Communities = v.Communities
	}
	return r
}

// routes are all VIPs of the node.
func (e expected) routes(t *testing.T, node string) (list []lab.Route) {
	t.Helper()
	for vip := range e.VIPs {
		list = append(list, e.route(t, node, vip))
	}
	return list
}
