package deployer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/centra/plasmacloud/deployer/node"
)

// VIPDeclaration is what the manifest says about a VIP.
type VIPDeclaration struct {
	VIP   string   // a host prefix, see node.CanonicalVIP
	Nodes []string // that may announce it
}

// Check says what is wrong with d.
func (d VIPDeclaration) Check() error {
	if canonical, ok := node.CanonicalVIP(d.VIP); !ok || canonical != d.VIP {
		return fmt.Errorf("VIP %q: want a prefix of one address such as 203.0.113.10/32", d.VIP)
	}
	return nil
}

// VIP is one VIP with its nodes.
type VIP struct {
	VIP       string
	Declared  bool // by the manifest
	Status    node.VIPStatus
	Since     time.Time // when Status came; zero while it has not settled, and where it is not declared
	Announced int       // nodes that announce it, and are online
	Nodes     []VIPNode // those that should announce it, and those that say something of it; by id
}

// VIPNode is a node's part in a VIP.
type VIPNode struct {
	ID           string
	Declared     bool   // the manifest lets it announce the VIP
	State        string // what it said last, see node.VIPStates; "": nothing
	Reason       string
	Reachability node.Reachability

	heard bool // at some time
	cut   bool // it did not say all
}

// Announces says whether the node announces the VIP, as far as it is known.
func (n VIPNode) Announces() bool { return n.says() && n.Reachability == node.Online }

func (n VIPNode) says() bool { return n.State == node.VIPAnnounced || n.State == node.VIPLowered }

// DeclareVIPs makes the manifest's VIPs the declared ones. They are kept in memory
// only: each deployer has its manifest.
func (r *Registry) DeclareVIPs(vips []VIPDeclaration) error {
	for _, v := range vips {
		if err := v.Check(); err != nil {
			return err
		}
	}
	r.vips.declare(vips)
	return nil
}

// VIPsOf returns the declared VIPs, and those that nodes announce beside them, by
// address, of what Nodes returned.
func (r *Registry) VIPsOf(views []View) []VIP {
	declared := r.vips.declaredNow()
	all := make(map[string]*gathered, len(declared))
	for _, d := range declared {
		of := &gathered{VIP: VIP{VIP: d.VIP, Declared: true}, at: make(map[string]int, len(d.Nodes))}
		for _, id := range d.Nodes {
			*of.node(id) = VIPNode{ID: id, Declared: true, Reachability: node.Unknown}
		}
		all[d.VIP] = of
	}
	for _, v := range views {
		if v.Waiting { // what a machine says that is not the node yet counts for nothing
			continue
		}
		says := func(vip, state, reason string) {
			if all[vip] == nil {
				all[vip] = &gathered{VIP: VIP{VIP: vip}, at: map[string]int{}}
			}
			if n := all[vip].node(v.ID); n.State == "" {
				n.State, n.Reason = state, reason
			}
		}
		for _, s := range v.VIPStates { // these say more than the list
			says(s.VIP, s.State, s.Reason)
		}
		for _, vip := range v.VIPs {
			says(vip, node.VIPAnnounced, "")
		}
	}
	known := make(map[string]int, len(views))
	for i, v := range views {
		known[v.ID] = i
	}
	young := r.cfg.Now().Sub(*r.listeningSince.Load()) <= r.cfg.OfflineAfter
	list := make([]VIP, 0, len(all))
	for _, v := range all {
		for i := range v.Nodes {
			if j, ok := known[v.Nodes[i].ID]; ok {
				at := &views[j]
				v.Nodes[i].Reachability = at.Reachability
				v.Nodes[i].heard, v.Nodes[i].cut = !at.LastSeen.IsZero(), at.VIPsLeftOut > 0 && !at.Waiting
				if at.Waiting {
					v.Nodes[i].Reason = "its machine waits for an operator's approval"
				}
			}
		}
		slices.SortFunc(v.Nodes, func(a, b VIPNode) int { return cmp.Compare(a.ID, b.ID) })
		v.settle(young)
		v.Since = r.vips.since(v.VIP.VIP, v.Status)
		list = append(list, v.VIP)
	}
	slices.SortFunc(list, func(a, b VIP) int { return node.CompareVIPs(a.VIP, b.VIP) })
	return list
}

// gathered is a VIP whose nodes are being found.
type gathered struct {
	VIP
	at map[string]int // where in Nodes a node is
}

func (g *gathered) node(id string) *VIPNode {
	i, ok := g.at[id]
	if !ok {
		i = len(g.Nodes)
		g.at[id] = i
		g.Nodes = append(g.Nodes, VIPNode{ID: id})
	}
	return &g.Nodes[i]
}

// settle finds out Status and Announced from Nodes. A deployer that has just begun to
// listen is young, and takes silence for no answer, of a node that was never heard
// either.
func (v *VIP) settle(young bool) {
	v.Status = node.Unannounced
	for _, n := range v.Nodes {
		switch {
		case n.Announces():
			v.Announced++
		case (young || n.heard) && n.Reachability == node.Unknown && (n.Declared || n.says()),
			n.Declared && n.cut && n.State == "" && n.Reachability == node.Online:
			v.Status = node.AnnouncementUnknown
		}
	}
	if v.Announced > 0 {
		v.Status = node.Announced
	}
}
