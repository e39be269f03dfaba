package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/centra/plasmacloud/bgp"
	"github.com/centra/plasmacloud/bgp/speaker"
	"github.com/centra/plasmacloud/vmtests/lab"
)

// benchFlip measures from the failing answer of a health check to the moment a
// GoBGP router's best path is gone. The peer is the bare withdraw over GoBGP's API.
func benchFlip(ctx context.Context, _ *bench) ([]figure, error) {
	const flips = 50
	var failing atomic.Bool
	answered := make(chan time.Time, 1)
	backend, err := serveChecks(ctx, &failing, answered)
	if err != nil {
		return nil, err
	}
	defer backend.Close()

	pair, err := startPair(ctx)
	if err != nil {
		return nil, err
	}
	defer pair.stop()
	config := map[string]any{}
	if err := json.Unmarshal(announcerConfig(&lab.Host{}, 1), &config); err != nil {
		return nil, err
	}
	config["speaker"] = map[string]any{"address": pair.speaker.APIAddress(), "timeout": "2s"}
	config["vips"].([]any)[0].(map[string]any)["checks"] = []any{map[string]any{
		"type": "http", "url": "http://" + backend.Addr + "/", "interval": "50ms", "timeout": "50ms", "rise": 1, "fall": 1}}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	cfg, err := bgp.ParseConfig(text)
	if err != nil {
		return nil, err
	}
	client, err := speaker.Dial(speaker.Config{Address: pair.speaker.APIAddress(), ASN: 65001, Timeout: 2 * time.Second})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	a := bgp.New(bgp.Options{Config: cfg, Speaker: client, Holder: newMemory(), Logger: quiet})
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = a.Run(run) }()

	var ours, bare []time.Duration
	for range flips {
		if err := pair.await(true); err != nil {
			return nil, err
		}
		failing.Store(true)
		begin := <-answered
		if err := pair.await(false); err != nil {
			return nil, err
		}
		ours = append(ours, pair.at.Sub(begin))
		failing.Store(false)
	}
	cancel()
	path := speaker.Path{Prefix: speaker.HostPrefix(netip.MustParseAddr("198.19.0.1"))}
	if err := pair.await(false); err != nil {
		return nil, err
	}
	for range flips {
		if err := client.Announce(ctx, []speaker.Path{path}); err != nil {
			return nil, err
		}
		if err := pair.await(true); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := client.Withdraw(ctx, []netip.Prefix{path.Prefix}); err != nil {
			return nil, err
		}
		if err := pair.await(false); err != nil {
			return nil, err
		}
		bare = append(bare, pair.at.Sub(begin))
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }
	p50, p99 := percentile(ours, 50), percentile(ours, 99)
	bare50, bare99 := percentile(bare, 50), percentile(bare, 99)
	return []figure{
		{"check fails to route gone, p50", ms(p50), "the time of a bare withdraw", float64(p50) / float64(bare50)},
		{"check fails to route gone, p99", ms(p99), "the time of a bare withdraw", float64(p99) / float64(bare99)},
		{"a bare withdraw over the API, p50", ms(bare50), "", 0},
		{"a bare withdraw over the API, p99", ms(bare99), "", 0},
	}, nil
}

// serveChecks answers health checks, and tells when it first gave a bad answer.
func serveChecks(ctx context.Context, failing *atomic.Bool, answered chan<- time.Time) (*http.Server, error) {
	listener, err := listenLoopback(ctx)
	if err != nil {
		return nil, err
	}
	var told atomic.Bool
	server := &http.Server{
		Addr: listener.Addr().String(), ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if !failing.Load() {
				told.Store(false)
				return
			}
			if told.CompareAndSwap(false, true) {
				answered <- time.Now()
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}),
	}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

func listenLoopback(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

// pair is a speaker and a router, both GoBGP in this process, that have one
// prefix or none.
type pair struct {
	speaker *speaker.InProcess
	events  chan event
	has     bool
	at      time.Time // of the last change
	stop    func()
}

type event struct {
	has bool
	at  time.Time
}

func startPair(ctx context.Context) (*pair, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pair{events: make(chan event, 1024), stop: cancel}
	nodeAddr, routerAddr := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	router, err := speaker.StartInProcess(ctx, speaker.InProcessConfig{
		APIAddress: "127.0.0.1:0", ASN: 65000, RouterID: routerAddress, ListenAddresses: []netip.Addr{routerAddr},
		Peers: []speaker.InProcessPeer{{Address: nodeAddr, ASN: 65001, Passive: true}},
	})
	if err == nil {
		p.speaker, err = speaker.StartInProcess(ctx, speaker.InProcessConfig{
			APIAddress: "127.0.0.1:0", ASN: 65001, RouterID: nodeAddress, ListenPort: -1,
			Peers: []speaker.InProcessPeer{{Address: routerAddr, Port: uint16(router.ListenPort()), ASN: 65000, LocalAddress: nodeAddr}},
		})
	}
	if err == nil {
		err = p.watch(ctx, router.APIAddress())
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return p, nil
}

// watch follows the router's best paths.
func (p *pair) watch(ctx context.Context, address string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	stream, err := api.NewGobgpApiClient(conn).WatchEvent(ctx, &api.WatchEventRequest{Table: &api.WatchEventRequest_Table{
		Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_BEST, Init: true}}}})
	if err != nil {
		return err
	}
	go func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				close(p.events)
				return
			}
			for _, path := range message.GetTable().GetPaths() {
				p.events <- event{!path.IsWithdraw, time.Now()}
			}
		}
	}()
	return nil
}

// await waits until the router has the prefix, or has it no more.
func (p *pair) await(has bool) error {
	late := time.After(30 * time.Second)
	for p.has != has {
		select {
		case e, ok := <-p.events:
			if !ok {
				return errors.New("the router's events ended")
			}
			p.has, p.at = e.has, e.at
		case <-late:
			return fmt.Errorf("route present: %t, waited for %t", p.has, has)
		}
	}
	return nil
}
