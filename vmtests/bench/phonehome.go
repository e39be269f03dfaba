package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

const (
	phoneHomes  = 10_000
	connections = 256
)

// benchPhoneHome lets 10,000 machines boot at once: each reports `ready` once,
// which the deployer has on disk before it answers. The peer decodes the same
// request and answers it from a bare net/http handler with no store.
func benchPhoneHome(ctx context.Context, b *bench) ([]figure, error) {
	ours, err := median(b.runs, func() (float64, error) {
		handler, shut, err := registryHandler(ctx, filepath.Join(b.dir, "state.db"))
		if err != nil {
			return 0, err
		}
		defer shut()
		return storm(ctx, handler)
	})
	if err != nil {
		return nil, err
	}
	bare, err := median(b.runs, func() (float64, error) { return storm(ctx, http.HandlerFunc(answerBare)) })
	if err != nil {
		return nil, err
	}
	return []figure{
		{fmt.Sprintf("%d phone-homes, bbolt", phoneHomes), fmt.Sprintf("%.0f/s", ours), "the rate of a bare net/http handler", ours / bare},
		{"a bare net/http handler, no store", fmt.Sprintf("%.0f/s", bare), "", 0},
	}, nil
}

// Logging costs time of its own, which neither side is asked for here.
var quiet = slog.New(slog.DiscardHandler)

// registryHandler is the deployer without its process: registry, bbolt, HTTP.
func registryHandler(ctx context.Context, path string) (http.Handler, func(), error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, nil, err
	}
	store, err := bolt.Open(bolt.Config{Path: path})
	if err != nil {
		return nil, nil, err
	}
	registry, err := deployer.New(ctx, deployer.Config{Store: store, Logger: quiet})
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	var declared []node.Declaration
	for i := range phoneHomes {
		declared = append(declared, node.Declaration{ID: nodeID(i), Role: "worker", IP: nodeIP(i)})
	}
	if _, err := registry.Declare(ctx, declared); err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return server.New(server.Config{Registry: registry, Logger: quiet}), func() { store.Close() }, nil
}

func nodeID(i int) string { return fmt.Sprintf("node%05d", i) }
func nodeIP(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func answerBare(w http.ResponseWriter, r *http.Request) {
	var request api.PhoneHomeRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(api.PhoneHomeResponse{NodeID: request.NodeID, State: node.Active, HeartbeatIntervalSeconds: 10})
}

// storm sends each node's report once and returns reports a second.
func storm(ctx context.Context, handler http.Handler) (float64, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }()
	defer srv.Close()

	client, err := api.NewClient("http://"+listener.Addr().String(), time.Minute,
		&http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections})
	if err != nil {
		return 0, err
	}
	var next atomic.Int64
	failed := make(chan error, connections)
	var all sync.WaitGroup
	begin := time.Now()
	for range connections {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= phoneHomes {
					return
				}
				answer, err := client.PhoneHome(ctx, api.PhoneHomeRequest{
					NodeID: nodeID(i), MachineID: fmt.Sprintf("4c4c4544-0000-4000-8000-%012d", i),
					IP: nodeIP(i).String(), Role: "worker", Phase: node.PhaseReady,
				})
				if err == nil && answer.State != node.Active {
					err = fmt.Errorf("%s is %s", nodeID(i), answer.State)
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	select {
	case err := <-failed:
		return 0, err
	default:
		return phoneHomes / took.Seconds(), nil
	}
}
