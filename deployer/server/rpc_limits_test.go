package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/tokens"
)

// TestBombs: what is small on the way and large in memory is refused.
func TestBombs(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{}, 1, false)
	client := r.client(true, connect.WithGRPC(), connect.WithSendGzip())
	_, err := client.PhoneHome(t.Context(), &deployerv1.PhoneHomeRequest{NodeId: "node01", Phase: "ready", Hostname: strings.Repeat("x", 8<<20)})
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("%v", err)
	}
}

// TestRPCBroken: a store that fails and a handler that panics are told as in REST.
func TestRPCBroken(t *testing.T) {
	t.Parallel()
	s := &brokenStore{Store: file(t)}
	r := begin(t, s, server.Config{}, 1, false)
	client := r.client(true, connect.WithGRPC())
	s.broken = true
	_, err := client.GetNode(t.Context(), &deployerv1.GetNodeRequest{NodeId: "node01"})
	if p := wantProblem(t, "broken", err, connect.CodeUnavailable, api.CodeUnavailable); strings.Contains(p.String(), "secret") {
		t.Error(p)
	}
	if health, err := client.GetHealth(t.Context(), &deployerv1.GetHealthRequest{}); err != nil || health.Status != "failing" {
		t.Errorf("%v, %v", health, err)
	}
	probe := healthpb.NewHealthClient(r.dial())
	if health, err := probe.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || health.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("gRPC's health: %v, %v", health, err)
	}
	s.panics = true
	_, err = client.GetNode(t.Context(), &deployerv1.GetNodeRequest{NodeId: "node01"})
	wantProblem(t, "panics", err, connect.CodeInternal, api.CodeInternal)
}

// TestRPCDeadline: a call ends when its client has no more time.
func TestRPCDeadline(t *testing.T) {
	t.Parallel()
	slow := &slowStore{Store: file(t)}
	r := begin(t, slow, server.Config{MaxConcurrent: 1, MaxWait: 20 * time.Second}, 1, false)
	slow.gate = make(chan struct{})
	defer close(slow.gate)
	client := r.client(true, connect.WithGRPC())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _ = client.GetNode(ctx, &deployerv1.GetNodeRequest{NodeId: "node01"}) }()
	// Either the first call or one of these is at work, and the others wait.
	for range 2 {
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := client.GetNode(short, &deployerv1.GetNodeRequest{NodeId: "node01"})
		cancel()
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("%v", err)
		}
	}
}

// TestCallsAreBounded: many requests on one connection of HTTP/2, slow ones of REST too,
// do not become any number of them at work, and HTTP/1.1 is served beside them.
func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	slow := &slowStore{Store: file(t)}
	r := begin(t, slow, server.Config{MaxConcurrent: 2, MaxWait: 20 * time.Second}, 1, false) // so 8 calls, 6 of them of one address
	slow.gate = make(chan struct{})
	h2 := r.transport(true)
	codes := make(chan int, 20)
	for range 20 {
		go func() {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+api.PathNodes+"/node01", nil)
			if err != nil {
				t.Error(err)
			}
			response, err := h2.Do(request)
			if err != nil {
				t.Error(err)
				codes <- 0
				return
			}
			response.Body.Close()
			codes <- response.StatusCode
		}()
	}
	for range 14 {
		if code := <-codes; code != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d", code)
		}
	}
	_, err := r.client(true, connect.WithGRPC()).GetHealth(t.Context(), &deployerv1.GetHealthRequest{})
	wantProblem(t, "a call more", err, connect.CodeUnavailable, api.CodeBusy)
	if response, err := r.transport(false).Get(r.url + api.PathOpenAPI); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", response, err)
	} else {
		response.Body.Close()
	}
	close(slow.gate)
	for range 6 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one of those that waited: %d", code)
		}
	}
}

// TestRPCBurst: over gRPC an address has as much as over REST, and a stream costs more.
func TestRPCBurst(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{Burst: 100}, 1, false)
	client := r.client(true, connect.WithGRPC())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var err error
	streams := 0
	for ; err == nil; streams++ { // also with what comes back meanwhile
		var stream *connect.ServerStreamForClient[deployerv1.WatchNodesResponse]
		if stream, err = client.WatchNodes(ctx, &deployerv1.WatchNodesRequest{}); err == nil && !stream.Receive() {
			err = stream.Err()
		}
	}
	wantProblem(t, "a stream", err, connect.CodeResourceExhausted, api.CodeTooManyRequests)
	if streams < 3 {
		t.Errorf("of %d streams the last was too many", streams)
	}
	for err = nil; err == nil; {
		_, err = client.GetNode(ctx, &deployerv1.GetNodeRequest{NodeId: "node01"})
	}
	wantProblem(t, "a read", err, connect.CodeResourceExhausted, api.CodeTooManyRequests)
	if _, err := client.GetHealth(ctx, &deployerv1.GetHealthRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := client.PhoneHome(ctx, &deployerv1.PhoneHomeRequest{NodeId: "node01", Phase: "ready", Role: "worker"}); err != nil {
		t.Error(err)
	}
}

// TestGRPCHealth: a probe of gRPC's own needs neither a token nor to know the deployer.
func TestGRPCHealth(t *testing.T) {
	t.Parallel()
	r := begin(t, file(t), server.Config{Operators: tokenFile(t, tokens.Operators, "v "+strings.Repeat("v", 32)+" role=viewer"), Burst: 1}, 1, false)
	probe := healthpb.NewHealthClient(r.dial())
	for service, want := range map[string]codes.Code{"": codes.OK, "plasmacloud.deployer.v1.DeployerService": codes.OK, "other": codes.NotFound} {
		for range 3 { // it costs nothing
			health, err := probe.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if status.Code(err) != want || err == nil && health.Status != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("%q: %v, %v", service, health, err)
			}
		}
	}
	watch, err := probe.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a watch: %v", err)
	}
}
