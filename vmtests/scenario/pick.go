package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/vmtests/labcluster"
)

// picks are what a scenario may call what it does not know the names of.
type picks struct {
	node, other    string   // two nodes that announce vip
	nodes, others  []string // all that do, and these without node
	vip, checked   string
	router, second string
	hold           time.Duration // the longest of a peer of node
}

func pick(c *labcluster.Cluster) (k picks) {
	announcers := map[netip.Addr][]string{}
	checked := map[netip.Addr]bool{}
	for _, id := range c.NodeIDs() {
		for _, v := range c.Nodes[id].VIPs() {
			if v.Hold != "none" {
				announcers[v.Address] = append(announcers[v.Address], id)
				checked[v.Address] = checked[v.Address] || len(v.Checks) > 0
			}
		}
	}
	var vips []netip.Addr
	for a := range announcers {
		if len(announcers[a]) > 1 {
			vips = append(vips, a)
		}
	}
	// One without checks first: nothing but what the scenario does moves it.
	slices.SortFunc(vips, func(a, b netip.Addr) int {
		if checked[a] != checked[b] {
			if checked[a] {
				return 1
			}
			return -1
		}
		return a.Compare(b)
	})
	if len(vips) == 0 {
		return k
	}
	k.vip = vips[0].String()
	k.nodes = announcers[vips[0]]
	k.node, k.other = k.nodes[0], k.nodes[1]
	k.others = k.nodes[1:]
	for _, a := range vips {
		if checked[a] && slices.Contains(announcers[a], k.node) && k.checked == "" {
			k.checked = a.String()
		}
	}
	for _, name := range c.RouterNames() {
		if c.Client == nil || !slices.Contains(c.Client.Via, name) || !slices.Contains(c.Routers[name].Neighbors(), k.node) {
			continue
		}
		if k.router == "" {
			k.router = name
		} else if k.second == "" {
			k.second = name
		}
	}
	for _, peer := range c.Nodes[k.node].Machine.BGP.Peers {
		k.hold = max(k.hold, time.Duration(peer.Hold)*time.Second)
	}
	return k
}

// expand puts what was picked in the place of names with a dollar sign, of which there may
// be several with commas.
func (p *play) expand(word string) (string, error) {
	if !strings.Contains(","+word, ",$") {
		return word, nil
	}
	parts := strings.Split(word, ",")
	for i, part := range parts {
		if !strings.HasPrefix(part, "$") {
			continue
		}
		var err error
		if parts[i], err = p.picked(part); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, ","), nil
}

// picked is what a name with a dollar sign stands for.
func (p *play) picked(word string) (string, error) {
	if p.c == nil {
		return "", errNotStarted
	}
	k := p.picks
	const shared = "it needs a VIP that two nodes announce and hold"
	var value string
	needs := shared
	switch word {
	case "$VIP":
		value = k.vip
	case "$NODE":
		value = k.node
	case "$OTHER":
		value = k.other
	case "$NODES":
		value = strings.Join(k.nodes, ",")
	case "$OTHERS":
		value = strings.Join(k.others, ",")
	case "$CHECKED":
		value, needs = k.checked, "it needs a VIP with a health check that two nodes announce and hold"
	case "$ROUTER":
		value, needs = k.router, "it needs a router that forwards, BIRD or FRR, on a link with the nodes"
	case "$ROUTER2":
		value, needs = k.second, "it needs two routers that forward, BIRD or FRR, on a link with the nodes"
	case "$HOLD":
		value = (k.hold + holdSlack).String()
	default:
		return "", fmt.Errorf("there is no %s; there are $VIP, $NODE, $OTHER, $NODES, $OTHERS, $CHECKED, $ROUTER, $ROUTER2, $HOLD and, with each, $EACH", word)
	}
	if value == "" || k.vip == "" {
		return "", errSkip{needs}
	}
	return value, nil
}

// holdSlack is what a router may take on top of the hold time.
const holdSlack = 10 * time.Second
