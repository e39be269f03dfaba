package fleet_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/certtest"
	"github.com/centra/plasmacloud/deployer/fleet"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/phonehome"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
	"github.com/centra/plasmacloud/deployer/tokens"
)

const token = "8c1f0be4d0a94a3f8a5f2c7d6e1b9a30"

// serve is a deployer that knows the nodes, with TLS and join tokens for a CA.
func serve(t *testing.T, nodes int, ca *certtest.CA) (url string, client *api.Client) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	kept, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kept.Close() })
	registry, err := deployer.New(t.Context(), deployer.Config{Store: kept, Logger: log, HeartbeatInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var declared []node.Declaration
	for i := range nodes {
		config, err := phonehome.ParseClusterConfig(fleet.ClusterConfig(i))
		if err != nil {
			t.Fatal(err)
		}
		declared = append(declared, node.Declaration{ID: fleet.ID(i), Role: config.NodeRole, ConfigHash: config.Hash})
	}
	if _, err := registry.Declare(t.Context(), declared); err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{Registry: registry, Logger: log}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url = "http://" + listener.Addr().String()
	files := api.TLSFiles{}
	if ca != nil {
		url, files.CA = "https://"+listener.Addr().String(), ca.File
		certificate, key := ca.Issue("deployer")
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
		path := filepath.Join(t.TempDir(), "join-tokens")
		if err := os.WriteFile(path, []byte("all "+token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if cfg.JoinTokens, err = tokens.Open(tokens.Join, path); err != nil {
			t.Fatal(err)
		}
	}
	httpServer := server.NewHTTP(server.New(cfg))
	httpServer.ReadHeaderTimeout = 3 * time.Second // of 5s
	httpServer.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	go func() { _ = httpServer.Serve(listener) }()
	t.Cleanup(func() { httpServer.Close() })
	transport, err := files.Transport()
	if err != nil {
		t.Fatal(err)
	}
	if client, err = api.NewClient(url, 10*time.Second, transport); err != nil {
		t.Fatal(err)
	}
	return url, client
}

func start(t *testing.T, cfg fleet.Config) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestActs plays everything, against a deployer of each kind.
func TestActs(t *testing.T) {
	t.Parallel()
	const nodes = 60
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "TLS and tokens"}[secure]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ca *certtest.CA
			cfg := fleet.Config{Nodes: nodes, Share: 0.2, Connections: 16, Patience: 30 * time.Second}
			if secure {
				ca = certtest.New(t)
				config, err := (api.TLSFiles{CA: ca.File}).Config()
				if err != nil {
					t.Fatal(err)
				}
				cfg.TLS, cfg.JoinToken = config, token
			}
			var client *api.Client
			cfg.URL, client = serve(t, nodes, ca)
			f := start(t, cfg)
			for _, act := range fleet.Acts {
				if act.Name == "tokens" && !secure {
					continue
				}
				results, err := act.Play(f, t.Context())
				if err != nil {
					t.Fatalf("%s: %v", act.Name, err)
				}
				for _, r := range results {
					checkResult(t, r, secure)
				}
			}
			beats, err := f.Beat(t.Context(), 1500*time.Millisecond)
			if err != nil || !beats.OK() || beats.Reports < nodes/2 {
				t.Errorf("heartbeats: %+v, %v", beats, err)
			}
			if r, err := f.Check(t.Context(), client); err != nil || !r.OK() {
				t.Errorf("check: %+v, %v", r, err)
			}
			all, err := client.List(t.Context())
			if err != nil || slices.ContainsFunc(all, func(n api.Node) bool { return n.Config != node.InSync }) {
				t.Errorf("they do not run what their manifest declares: %v", err)
			}
		})
	}
}

// TestApart: each node keeps its connection, from an address of its own, over both reports.
func TestApart(t *testing.T) {
	t.Parallel()
	const nodes = 20
	var mu sync.Mutex
	connections, addresses := map[string]string{}, map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var report api.PhoneHomeRequest
		_ = json.NewDecoder(r.Body).Decode(&report)
		mu.Lock()
		defer mu.Unlock()
		if id, known := connections[r.RemoteAddr]; known && id != report.NodeID {
			t.Errorf("%s and %s share a connection", id, report.NodeID)
		}
		connections[r.RemoteAddr] = report.NodeID
		addresses[netip.MustParseAddrPort(r.RemoteAddr).Addr().String()] = true
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(api.PhoneHomeResponse{NodeID: report.NodeID, State: node.Active, HeartbeatIntervalSeconds: 60})
	}))
	t.Cleanup(s.Close)
	f := start(t, fleet.Config{URL: s.URL, Nodes: nodes, Apart: true, Patience: 10 * time.Second})
	results, err := f.Join(t.Context())
	if err != nil || !results[0].OK() || results[0].Reports != 2*nodes {
		t.Errorf("%+v, %v", results, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(connections) != nodes || len(addresses) != nodes {
		t.Errorf("%d connections from %d addresses, want %d of each", len(connections), len(addresses), nodes)
	}
}

func checkResult(t *testing.T, r fleet.Result, secure bool) {
	t.Helper()
	const nodes, share = 60, 12
	want := map[string]struct {
		nodes, reports int
		refused        int
	}{
		"join": {nodes, 2 * nodes, 0}, "reboot": {nodes, 2 * nodes, 0}, "restart": {nodes, nodes, 0},
		"duplicates": {share, share, share}, "tokens": {share, share, share},
		"skew": {share, 2 * share, 0}, "slow": {share, 2 * share, 0}, "beside slow": {nodes - share, 2 * (nodes - share), 0},
	}[r.Act]
	refused := 0
	for _, n := range r.Refused {
		refused += n
	}
	if !r.OK() || r.Nodes != want.nodes || r.Reports < want.reports || refused != want.refused {
		t.Errorf("%+v\nwant %+v", r, want)
	}
	if r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Worst || r.Rate <= 0 {
		t.Errorf("figures of %s: %+v", r.Act, r)
	}
	switch r.Act {
	case "slow":
		if r.P50 < 300 || r.Dropped < 2.9 {
			t.Errorf("so slow a network: %+v", r)
		}
	case "skew":
		if certificates := r.Errors["certificate"]; secure != (certificates >= share) {
			t.Errorf("%d certificates were not valid, with TLS: %v", certificates, secure)
		}
	case "tokens":
		if r.Refused[node.CodeNodeSecretWrong]+r.Refused[api.CodeTooManyAttempts] != share {
			t.Errorf("wrong tokens: %+v", r.Refused)
		}
	}
}

// TestFaults: a deployer that lets everybody in, or nobody, does not pass.
func TestFaults(t *testing.T) {
	t.Parallel()
	lenient := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"nodes": [{"node_id": "sim-000000", "state": "Failed"}]}`)
			return
		}
		var report api.PhoneHomeRequest
		_ = json.NewDecoder(r.Body).Decode(&report)
		_ = json.NewEncoder(w).Encode(api.PhoneHomeResponse{NodeID: report.NodeID, State: node.Active, HeartbeatIntervalSeconds: 60})
	}))
	defer lenient.Close()
	f := start(t, fleet.Config{URL: lenient.URL, Nodes: 10, Share: 0.5, JoinToken: token})
	if _, err := f.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, act := range map[string]func() ([]fleet.Result, error){
		"duplicates": func() ([]fleet.Result, error) { return f.Duplicates(t.Context()) },
		"tokens":     func() ([]fleet.Result, error) { return f.WrongTokens(t.Context()) },
	} {
		results, err := act()
		if err != nil || len(results) != 1 || len(results[0].Faults) != 5 || !strings.HasSuffix(results[0].Faults[0], "was given to somebody else") {
			t.Errorf("%s at a deployer that lets everybody in: %+v, %v", name, results, err)
		}
	}
	client, err := api.NewClient(lenient.URL, time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := f.Check(t.Context(), client); err != nil || len(r.Faults) != 4 || r.Faults[0] != "the deployer says that sim-000000 is Failed" ||
		r.Faults[1] != "the deployer says that sim-000001 is not there" {
		t.Errorf("a deployer that lost nodes: %+v, %v", r, err)
	}

	url, _ := serve(t, 3, nil)
	stranger := start(t, fleet.Config{URL: url, Nodes: 5})
	results, err := stranger.Join(t.Context())
	if err != nil || len(results) != 1 || len(results[0].Faults) != 1 || results[0].Refused[node.CodeUnknownNode] != 2 ||
		!strings.HasPrefix(results[0].Faults[0], "2 of 5 nodes were not Active") || !strings.Contains(results[0].Faults[0], "unknown_node") {
		t.Errorf("two nodes that nobody declared: %+v, %v", results, err)
	}
	if _, err := stranger.WrongTokens(t.Context()); err == nil {
		t.Error("wrong tokens where none are wanted")
	}

	gone := httptest.NewServer(nil)
	gone.Close()
	nobody := start(t, fleet.Config{URL: gone.URL, Nodes: 2, Patience: 100 * time.Millisecond})
	results, err = nobody.Join(t.Context())
	if err != nil || results[0].OK() || results[0].Errors["connection refused"] < 2 {
		t.Errorf("no deployer: %+v, %v", results, err)
	}
}

// TestSameSeed: another process with the same seed has the same machines.
func TestSameSeed(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	config, err := (api.TLSFiles{CA: ca.File}).Config()
	if err != nil {
		t.Fatal(err)
	}
	url, _ := serve(t, 3, ca)
	for _, c := range []struct {
		seed uint64
		ok   bool
	}{{1, true}, {1, true}, {2, false}} {
		f := start(t, fleet.Config{URL: url, TLS: config, Nodes: 3, Seed: c.seed, JoinToken: token, Patience: time.Second})
		results, err := f.Join(t.Context())
		if err != nil || results[0].OK() != c.ok {
			t.Errorf("seed %d: %+v, %v", c.seed, results, err)
		}
		f.Close()
	}
}
