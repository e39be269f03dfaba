package server

import (
	"context"
	"net/http"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/api/v1/deployerv1connect"
)

// healthProcedure is what load balancers and probes ask that know gRPC and not the
// deployer. There is no Watch: its clients take a server without one for well.
const healthProcedure = healthPrefix + "Check"

func (c *rpc) checkHealth(ctx context.Context, m *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return reply(ctx, c, func(w http.ResponseWriter, r *http.Request) answer {
		if m.Service != "" && m.Service != deployerv1connect.DeployerServiceName {
			return refused(api.Problem{
				Status: http.StatusNotFound, Code: api.CodeNotFound, Title: "No such service",
				Detail: "ask for " + deployerv1connect.DeployerServiceName + ", or for no service by name",
			})
		}
		return c.health(w, r)
	}, func(h api.Health) *healthpb.HealthCheckResponse {
		if h.Status == "failing" {
			return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
		}
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}
	})
}
