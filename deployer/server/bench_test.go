package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// BenchmarkPhoneHome is 10,000 nodes over 256 connections, client and server on
// the same cores: a round of first reports, each durable before its answer, and a
// round of heartbeats that change nothing.
func BenchmarkPhoneHome(b *testing.B) {
	const nodes, connections = 10_000, 256
	transport := &http.Transport{MaxIdleConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	var first, beats time.Duration
	for b.Loop() {
		b.StopTimer()
		h, _ := start(b, nodes)
		srv := httptest.NewServer(h)
		client, err := api.NewClient(srv.URL, time.Minute, transport)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for _, took := range []*time.Duration{&first, &beats} {
			began := time.Now()
			ids := make(chan int)
			var wg sync.WaitGroup
			for range connections {
				wg.Go(func() {
					for i := range ids {
						id := fmt.Sprintf("node%02d", i+1)
						_, err := client.PhoneHome(b.Context(), api.PhoneHomeRequest{
							NodeID: id, MachineID: fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", i), BootID: "b", Hostname: id, Role: "worker",
							ConfigHash: hash1, Phase: node.PhaseReady, Facts: map[string]string{"kernel": "6.12.1", "arch": "amd64", "cpus": "64"},
						})
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range nodes {
				ids <- i
			}
			close(ids)
			wg.Wait()
			*took += time.Since(began)
		}
		b.StopTimer()
		srv.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(nodes*b.N)/first.Seconds(), "first/s")
	b.ReportMetric(float64(nodes*b.N)/beats.Seconds(), "heartbeats/s")
}
