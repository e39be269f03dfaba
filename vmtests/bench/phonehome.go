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
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/store/etcd"
)

const (
	phoneHomes  = 10_000
	connections = 256
)

// benchPhoneHome lets 10,000 machines boot at once: each reports `ready` once,
// which the deployer has on disk before it answers, in its own file or in an etcd
// beside it. The peer decodes the same request and answers it from a bare net/http
// handler with no store.
func benchPhoneHome(ctx context.Context, b *bench) ([]figure, error) {
	endpoint, stop, err := startEtcd(ctx, filepath.Join(b.dir, "etcd"))
	if err != nil {
		return nil, err
	}
	defer stop()
	run := 0
	stores := []struct {
		name string
		open func() (store.Store, error)
	}{
		{"bbolt", func() (store.Store, error) {
			run++
			return bolt.Open(bolt.Config{Path: filepath.Join(b.dir, fmt.Sprintf("state%d.db", run))})
		}},
		{"etcd beside it", func() (store.Store, error) {
			run++
			return etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}, Prefix: fmt.Sprintf("/%d/", run)})
		}},
	}
	bare, err := median(b.runs, func() (float64, error) { return storm(ctx, http.HandlerFunc(answerBare)) })
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, kept := range stores {
		rate, err := median(b.runs, func() (float64, error) {
			handler, shut, err := registryHandler(ctx, kept.open)
			if err != nil {
				return 0, err
			}
			defer shut()
			return storm(ctx, handler)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kept.name, err)
		}
		figures = append(figures, figure{
			fmt.Sprintf("%d phone-homes, %s", phoneHomes, kept.name), fmt.Sprintf("%.0f/s", rate), "the rate of a bare net/http handler", rate / bare,
		})
	}
	return append(figures, figure{"a bare net/http handler, no store", fmt.Sprintf("%.0f/s", bare), "", 0}), nil
}

// startEtcd runs Debian's etcd, alone and with its files in dir.
func startEtcd(ctx context.Context, dir string) (endpoint string, stop func(), err error) {
	var urls [2]string // for clients, and for peers that there are not
	for i := range urls {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, err
		}
		urls[i] = "http://" + l.Addr().String()
		l.Close()
	}
	cmd := exec.CommandContext(ctx, "etcd", "--name=bench", "--data-dir="+dir, "--log-level=error",
		"--listen-client-urls="+urls[0], "--advertise-client-urls="+urls[0], "--listen-peer-urls="+urls[1],
		"--initial-advertise-peer-urls="+urls[1], "--initial-cluster=bench="+urls[1])
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: urls[:1], Prefix: "/ready/", Timeout: time.Second})
		if err == nil {
			return urls[0], stop, s.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			stop()
			return "", nil, err
		}
	}
}

// Logging costs time of its own, which neither side is asked for here.
var quiet = slog.New(slog.DiscardHandler)

// registryHandler is the deployer without its process: registry, store, HTTP.
func registryHandler(ctx context.Context, open func() (store.Store, error)) (http.Handler, func(), error) {
	kept, err := open()
	if err != nil {
		return nil, nil, err
	}
	registry, err := deployer.New(ctx, deployer.Config{Store: kept, Logger: quiet})
	if err != nil {
		return nil, nil, errors.Join(err, kept.Close())
	}
	var declared []node.Declaration
	for i := range phoneHomes {
		declared = append(declared, node.Declaration{ID: nodeID(i), Role: "worker", IP: nodeIP(i)})
	}
	if _, err := registry.Declare(ctx, declared); err != nil {
		return nil, nil, errors.Join(err, kept.Close())
	}
	return server.New(server.Config{Registry: registry, Logger: quiet}), func() { kept.Close() }, nil
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
