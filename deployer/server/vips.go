package server

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"

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
	list, done, err := s.vips.get(r.Context(), s.encodeVIPs)
	if err != nil {
		return s.fail(r, err)
	}
	return answer{status: http.StatusOK, body: list, written: done}
}

// vipsAfter answers with up to limit VIPs behind the VIP after, or less where they are large.
func (s *server) vipsAfter(r *http.Request, after string, limit int) answer {
	if limit < 0 || limit > api.MaxList {
		return refused(*badLimit())
	}
	if _, ok := node.CanonicalVIP(after); after != "" && !ok {
		return refused(*badQuery("after", "want next of the page before, which is a VIP"))
	}
	if !s.enter(r, s.listPages) {
		return busy()
	}
	done := func() { <-s.listPages }
	vips, err := s.registry.VIPs(r.Context())
	if err != nil {
		done()
		return s.fail(r, err)
	}
	list := wireVIPs(vips)
	all := list.VIPs
	list.VIPs = []api.VIP{}
	size := 0
	for _, v := range all {
		if after != "" && node.CompareVIPs(v.VIP, after) <= 0 {
			continue
		}
		if len(list.VIPs) == cmp.Or(limit, api.MaxList) || size > pageBytes {
			list.Next = list.VIPs[len(list.VIPs)-1].VIP
			break
		}
		list.VIPs = append(list.VIPs, v)
		size += 128
		for _, n := range v.Nodes {
			size += 96 + len(n.Reason)
		}
	}
	return answer{status: http.StatusOK, body: list, written: done}
}

func (s *server) encodeVIPs(ctx context.Context) (json.RawMessage, error) {
	vips, err := s.registry.VIPs(ctx)
	if err != nil {
		return nil, err
	}
	return encode(wireVIPs(vips)), nil
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
