package server

import (
	"net/http"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
)

// status has no turnstile, as the list of nodes.
func (s *server) status(_ http.ResponseWriter, r *http.Request) answer {
	state, err := s.fleetState(r.Context(), since(time.Now()))
	if err != nil {
		return s.fail(r, err)
	}
	return answer{status: http.StatusOK, body: state.status()}
}

func (s *server) wireStatus(v deployer.Status) api.Status {
	wire := api.Status{
		Version: s.cfg.Version, Leader: s.registry.Leading(), Nodes: v.Nodes, States: v.States, Reachability: v.Reachability,
		Config: v.Config, Held: v.Held, Waiting: v.Waiting, Undeclared: v.Undeclared, Unreadable: v.Unreadable, VIPs: v.VIPs,
		Warnings: []string{},
	}
	for _, w := range v.Warnings {
		wire.Warnings = append(wire.Warnings, clean(w))
	}
	return wire
}
