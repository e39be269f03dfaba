package server

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// listVIPs has no turnstile, as the list of nodes.
func (s *server) listVIPs(_ http.ResponseWriter, r *http.Request) answer {
	after, limit, problem := listQuery(r)
	switch {
	case problem != nil:
		return refused(*problem)
	case after != "" || limit != 0:
		return s.vipsAfter(r, after, limit)
	}
	return s.whole(r, "vips", func(f *fleetState, after string) (lines any, next, end string) {
		part := f.vipsAfter(after, api.MaxList, partBytes)
		end = "]}\n"
		if part.LeftOut > 0 {
			end = fmt.Sprintf(`],"left_out":%d}`+"\n", part.LeftOut)
		}
		return part.VIPs, part.Next, end
	})
}

// vipsAfter answers with up to limit VIPs behind the VIP after, or less where they are large.
func (s *server) vipsAfter(r *http.Request, after string, limit int) answer {
	if after != "" {
		canonical, ok := node.CanonicalVIP(after)
		if !ok {
			return refused(*badQuery("after", "want next of the page before, which is a VIP"))
		}
		after = canonical
	}
	return s.listed(r, after, limit, func(f *fleetState) any {
		return f.vipsAfter(after, cmp.Or(limit, api.MaxList), pageBytes)
	})
}

func (f *fleetState) vipsAfter(after string, limit, bytes int) api.VIPList {
	list := f.wireVIPs()
	if after != "" {
		at, found := slices.BinarySearchFunc(list.VIPs, after, func(v api.VIP, vip string) int { return node.CompareVIPs(v.VIP, vip) })
		if found {
			at++
		}
		list.VIPs = list.VIPs[at:]
	}
	for i, v := range list.VIPs {
		if i == limit || bytes < 0 {
			list.VIPs, list.Next = list.VIPs[:i], list.VIPs[i-1].VIP
			break
		}
		bytes -= 128
		for _, n := range v.Nodes {
			bytes -= 96 + len(n.Reason)
		}
	}
	return list
}

func wireVIPs(vips []deployer.VIP) api.VIPList {
	list := api.VIPList{VIPs: make([]api.VIP, 0, len(vips))}
	undeclared := 0
	for _, v := range vips {
		if !v.Declared {
			if undeclared++; undeclared > api.MaxUndeclaredVIPs {
				list.LeftOut++
				continue
			}
		}
		wire := api.VIP{
			VIP: v.VIP, Declared: v.Declared, Status: v.Status, Since: optional(v.Since), Announced: v.Announced,
			Nodes: make([]api.VIPNode, len(v.Nodes)),
		}
		for i, n := range v.Nodes {
			wire.Nodes[i] = api.VIPNode{ID: n.ID, Declared: n.Declared, State: n.State, Reason: n.Reason, Reachability: n.Reachability}
		}
		list.VIPs = append(list.VIPs, wire)
	}
	return list
}
