package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// probeGRPC asks by the protocol that gRPC servers have for it:
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md
func probeGRPC(ctx context.Context, c Check, dialer *net.Dialer) error {
	trust := insecure.NewCredentials()
	if c.TLS {
		cfg, err := c.tlsConfig()
		if err != nil {
			return err
		}
		trust = credentials.NewTLS(cfg)
	}
	var dialErr atomic.Pointer[error] // which gRPC makes a text of
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(trust), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", address)
			if err = asLocal(err); err != nil {
				dialErr.Store(&err)
			}
			return conn, err
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBody)), grpc.WithMaxHeaderListSize(maxBody),
		grpc.WithUserAgent("plasmacloud-announcer"),
	}
	if c.Host != "" {
		options = append(options, grpc.WithAuthority(c.Host))
	}
	conn, err := grpc.NewClient("passthrough:///"+c.Address, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: c.Service})
	if local := dialErr.Load(); err != nil && local != nil && errors.Is(*local, ErrNotAsked) {
		return *local
	}
	switch problem := status.Convert(err); {
	case err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING:
		return nil
	case err == nil:
		return fmt.Errorf("answers %s, want SERVING", answer.GetStatus())
	case problem.Code() == codes.NotFound:
		return fmt.Errorf("knows no service %s", quote(c.Service))
	case problem.Code() == codes.Unimplemented:
		return fmt.Errorf("does not serve grpc.health.v1: %s", printable(problem.Message()))
	default:
		return fmt.Errorf("%s: %s", problem.Code(), printable(problem.Message()))
	}
}
