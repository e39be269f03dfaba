package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/centra/plasmacloud/deployer/api"
)

// status has no turnstile, as the list of nodes.
func (s *server) status(_ http.ResponseWriter, r *http.Request) answer {
	made, done, err := s.statuses.get(r.Context(), s.encodeStatus)
	if err != nil {
		return s.fail(r, err)
	}
	return answer{status: http.StatusOK, body: made, written: done}
}

func (s *server) encodeStatus(ctx context.Context) (json.RawMessage, error) {
	v, err := s.registry.Status(ctx)
	if err != nil {
		return nil, err
	}
	wire := api.Status{
		Version: s.cfg.Version, Leader: s.registry.Leading(), Nodes: v.Nodes, States: v.States, Reachability: v.Reachability,
		Config: v.Config, Held: v.Held, Waiting: v.Waiting, Undeclared: v.Undeclared, Unreadable: v.Unreadable, VIPs: v.VIPs,
		Warnings: []string{},
	}
	for _, w := range v.Warnings {
		wire.Warnings = append(wire.Warnings, clean(w))
	}
	return encode(wire), nil
}
