package labcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// Check is one thing that the evaluation says of the cluster, and whether it is so.
type Check struct {
	Where  string `json:"where"` // a router, a node, or the deployer
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"` // why it is not so
}

func check(where, what string, problems ...string) Check {
	return Check{Where: where, What: what, OK: len(problems) == 0, Reason: strings.Join(problems, "; ")}
}

// Checks compares the cluster with its evaluation, once.
func (c *Cluster) Checks(ctx context.Context) []Check {
	var list []Check
	for _, name := range c.RouterNames() {
		list = append(list, c.checkRouter(c.Routers[name])...)
	}
	for _, id := range c.NodeIDs() {
		if n := c.Nodes[id]; n.Machine.Announcer != nil {
			list = append(list, n.checkHeld())
		}
	}
	if c.Deployer != nil {
		list = append(list, c.checkDeployer(ctx)...)
	}
	return list
}

// Failed are those of the checks that are not so.
func Failed(list []Check) []Check {
	return slices.DeleteFunc(slices.Clone(list), func(c Check) bool { return c.OK })
}

// Settle waits until the cluster is as its evaluation says, and returns the last
// look. It waits no longer than told, and not for what has ended by itself.
func (c *Cluster) Settle(ctx context.Context, within time.Duration) []Check {
	deadline := time.Now().Add(within)
	for {
		list := c.Checks(ctx)
		if c.cfg.Looked != nil {
			c.cfg.Looked(list)
		}
		if len(Failed(list)) == 0 || time.Now().After(deadline) {
			return list
		}
		if ctx.Err() != nil {
			return append(list, check("lab", "all is so in time", context.Cause(ctx).Error()))
		}
		if err := c.Alive(ctx); err != nil {
			return append(list, check("lab", "every program runs", err.Error()))
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Cluster) checkRouter(r *Router) []Check {
	name := r.Host.Name
	neighbors := len(r.config.Neighbors)
	var problems []string
	up, err := r.Established()
	if err != nil {
		problems = append(problems, err.Error())
	} else if up != neighbors {
		problems = append(problems, fmt.Sprintf("%d are up", up))
	}
	list := []Check{check(name, plural(neighbors, "BGP session is up", "BGP sessions are up"), problems...)}

	routes, err := r.Routes()
	if err != nil {
		return append(list, check(name, "its table can be read", err.Error()))
	}
	unknown := r.Unknown()
	for _, id := range unknown {
		n := c.Nodes[id]
		c.instead(fmt.Sprintf("what %s hears of %s is not checked: the export rules of the peer decide it", name, id))
		routes = slices.DeleteFunc(routes, func(route lab.Route) bool {
			return route.NextHop == n.NextHop(route.Prefix.Addr())
		})
	}
	type key struct {
		prefix netip.Prefix
		hop    netip.Addr
	}
	has := map[key]lab.Route{}
	for _, route := range sorted(routes) {
		has[key{route.Prefix, route.NextHop}] = route
	}
	byPrefix := map[netip.Prefix][]lab.Route{}
	var prefixes []netip.Prefix
	for _, want := range c.Wanted(name, nil) {
		if byPrefix[want.Prefix] == nil {
			prefixes = append(prefixes, want.Prefix)
		}
		byPrefix[want.Prefix] = append(byPrefix[want.Prefix], want)
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, prefix := range prefixes {
		var via, problems []string
		for _, want := range byPrefix[prefix] {
			k := key{want.Prefix, want.NextHop}
			got, there := has[k]
			via = append(via, c.nodeAt(want.NextHop))
			switch {
			case !there:
				problems = append(problems, fmt.Sprintf("no route via %s (%s)", c.nodeAt(want.NextHop), want.NextHop))
			default:
				for _, d := range differences(got, want) {
					problems = append(problems, fmt.Sprintf("via %s: %s", c.nodeAt(want.NextHop), d))
				}
			}
			delete(has, k)
		}
		list = append(list, check(name, fmt.Sprintf("%s via %s%s", prefix, inShort(via), attributes(byPrefix[prefix])), problems...))
	}
	problems = nil
	for k := range has {
		problems = append(problems, fmt.Sprintf("it has %s via %s", k.prefix, c.nodeAt(k.hop)))
	}
	slices.Sort(problems)
	return append(list, check(name, "no other route", problems...))
}

// inShort is a list of names, or how many they are.
func inShort(names []string) string {
	if len(names) > 4 {
		return fmt.Sprintf("%d nodes", len(names))
	}
	return strings.Join(names, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// nodeAt is the node that has the address for its own, or the address if there is none.
func (c *Cluster) nodeAt(a netip.Addr) string {
	for id, p := range c.topology.nodes {
		if p[0] == a || p[1] == a {
			return id
		}
	}
	return a.String()
}

// attributes is what is declared of the routes to a prefix, where it is the same of all.
func attributes(routes []lab.Route) string {
	r := routes[0]
	var words []string
	if r.LocalPref > 0 {
		words = append(words, fmt.Sprintf("local preference %d", r.LocalPref))
	}
	if len(r.ASPath) > 0 {
		words = append(words, "AS path "+strings.Trim(fmt.Sprint(r.ASPath), "[]"))
	}
	if r.MED > 0 {
		words = append(words, fmt.Sprintf("MED %d", r.MED))
	}
	if all := append(slices.Clone(r.Communities), r.Large...); len(all) > 0 {
		words = append(words, "communities "+strings.Join(all, " "))
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + strings.Join(words, ", ")
}

func differences(got, want lab.Route) (list []string) {
	differ := func(what string, got, want any) {
		if g, w := strings.Trim(fmt.Sprint(got), "[]"), strings.Trim(fmt.Sprint(want), "[]"); g != w {
			list = append(list, fmt.Sprintf("%s is %q, declared is %q", what, g, w))
		}
	}
	differ("the AS path", got.ASPath, want.ASPath)
	differ("the MED", got.MED, want.MED)
	differ("the local preference", got.LocalPref, want.LocalPref)
	differ("the communities", got.Communities, want.Communities)
	differ("the large communities", got.Large, want.Large)
	if got.Incomplete {
		list = append(list, "its origin is not IGP")
	}
	return list
}

// checkHeld looks whether the host takes packets for each of its VIPs.
func (n *Node) checkHeld() Check {
	vips := n.VIPs()
	what := "holds " + plural(len(vips), "VIP", "VIPs")
	held, err := n.Taken()
	if err != nil {
		return check(n.ID, what, err.Error())
	}
	var problems []string
	for _, v := range vips {
		want := v.Hold != "none"
		if held[v.Address] != want {
			word := map[bool]string{true: "does not hold", false: "holds"}[want]
			problems = append(problems, fmt.Sprintf("%s %s", word, v.Address))
		}
	}
	return check(n.ID, what, problems...)
}

// Taken is what the kernel takes as its own: every address, and every local route.
func (n *Node) Taken() (map[netip.Addr]bool, error) {
	all := map[netip.Addr]bool{}
	for _, f := range []string{"-4", "-6"} {
		out, err := n.Control.Run("ip", f, "route", "show", "table", "local", "type", "local")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			for word := range strings.FieldsSeq(line) {
				if a, err := netip.ParseAddr(word); err == nil {
					all[a] = true
					break
				}
			}
		}
	}
	return all, nil
}

// Held is the set of addresses on the node's interfaces.
func (n *Node) Held() (map[netip.Addr]bool, error) {
	out, err := n.Control.Run("ip", "-o", "addr", "show")
	return lab.Held(out), err
}

func (c *Cluster) checkDeployer(ctx context.Context) []Check {
	nodes, err := c.Deployer.List(ctx)
	if err != nil {
		return []Check{check("deployer", "it answers", err.Error())}
	}
	byID := map[string]api.Node{}
	for _, n := range nodes {
		byID[n.ID] = n
	}
	var list []Check
	for _, id := range c.NodeIDs() {
		n, known := byID[id]
		delete(byID, id)
		if !known {
			list = append(list, check("deployer", id+" is Active", "it does not know the node"))
			continue
		}
		var problems []string
		if n.State != node.Active {
			problem := fmt.Sprintf("it is %s", n.State)
			if n.LastError != nil {
				problem += ": " + n.LastError.Message
			}
			problems = append(problems, problem)
		}
		if n.Reachability != node.Online {
			problems = append(problems, fmt.Sprintf("it is %s", n.Reachability))
		}
		list = append(list, check("deployer", id+" is Active", problems...))
		problems = nil
		if want := c.Nodes[id].Evaluated.ConfigHash; n.ReportedHash != want {
			problems = append(problems, fmt.Sprintf("it has %s, evaluated is %s", n.ReportedHash, want))
		} else if n.Config != node.InSync {
			problems = append(problems, fmt.Sprintf("the deployer says %s", n.Config))
		}
		list = append(list, check("deployer", id+" has the evaluated configuration", problems...))
	}
	for id := range byID {
		list = append(list, check("deployer", "no other node", "it has "+id))
	}
	return append(list, c.checkVIPs(ctx)...)
}

// checkVIPs compares who announces each VIP, as the nodes told the deployer, with who
// is to.
func (c *Cluster) checkVIPs(ctx context.Context) []Check {
	got, err := c.Deployer.VIPs(ctx)
	if err != nil {
		return []Check{check("deployer", "it lists the VIPs", err.Error())}
	}
	wanted := map[string][]string{}
	for vip := range c.cfg.Cluster.Manifest.VIPs {
		wanted[vip] = nil
	}
	for _, id := range c.NodeIDs() {
		for _, v := range c.Nodes[id].VIPs() {
			vip := netip.PrefixFrom(v.Address, v.Address.BitLen()).String()
			wanted[vip] = append(wanted[vip], id)
		}
	}
	return compareVIPs(wanted, got.VIPs)
}

// compareVIPs compares the nodes that are to announce each VIP with the deployer's list.
func compareVIPs(wanted map[string][]string, got []api.VIP) (list []Check) {
	listed := map[string]api.VIP{}
	for _, vip := range got {
		listed[vip.VIP] = vip
	}
	for _, name := range slices.SortedFunc(maps.Keys(wanted), node.CompareVIPs) {
		vip, has := listed[name]
		delete(listed, name)
		var problems []string
		switch {
		case !has:
			problems = append(problems, "it does not list the VIP")
		case !vip.Declared:
			problems = append(problems, "its manifest does not have the VIP")
		}
		said := map[string]api.VIPNode{}
		for _, n := range vip.Nodes {
			said[n.ID] = n
		}
		for _, id := range wanted[name] {
			n, has := said[id]
			delete(said, id)
			switch {
			case !has && len(problems) == 0:
				problems = append(problems, id+" is not among its nodes")
			case has && n.State != node.VIPAnnounced:
				problems = append(problems, strings.TrimSpace(fmt.Sprintf("%s says %q %s", id, n.State, n.Reason)))
			}
		}
		for _, id := range slices.Sorted(maps.Keys(said)) {
			if said[id].State == node.VIPAnnounced {
				problems = append(problems, id+" announces it, and is not to")
			}
		}
		list = append(list, check("deployer", "all nodes of "+name+" announce it", problems...))
	}
	for _, name := range slices.SortedFunc(maps.Keys(listed), node.CompareVIPs) {
		list = append(list, check("deployer", "no other VIP", "it has "+name))
	}
	return list
}

// Err is an error that names all checks that are not so.
func Err(list []Check) error {
	var errs []error
	for _, f := range Failed(list) {
		errs = append(errs, fmt.Errorf("%s: %s: %s", f.Where, f.What, f.Reason))
	}
	return errors.Join(errs...)
}
