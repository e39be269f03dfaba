package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
)

// listVIPs has no turnstile, as the list of nodes.
func (s *server) listVIPs(_ http.ResponseWriter, r *http.Request) answer {
	list, done, err := s.vips.get(r.Context(), s.encodeVIPs)
	if err != nil {
		return s.fail(r, err)
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
