package server_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/metrics"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

// deafStore cannot be listed any more, once it is deaf.
type deafStore struct {
	store.Store
	deaf bool
}

func (s *deafStore) List(ctx context.Context) ([]node.Node, error) {
	if s.deaf {
		return nil, errors.New("input/output error")
	}
	return s.Store.List(ctx)
}

func TestMetrics(t *testing.T) {
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	deaf := &deafStore{Store: file}
	m := metrics.New("v7")
	now := time.Now()
	registry, err := deployer.New(t.Context(), deployer.Config{
		Store: m.Store(deaf), Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []node.Declaration
	for _, id := range []string{"node01", "node02", "node03"} {
		nodes = append(nodes, node.Declaration{ID: id, Role: "worker", ConfigHash: hash1})
	}
	if _, err := registry.Declare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	if err := registry.DeclareVIPs([]deployer.VIPDeclaration{{VIP: "203.0.113.10/32", Nodes: []string{"node01"}}, {VIP: "203.0.113.11/32"}}); err != nil {
		t.Fatal(err)
	}
	h := server.New(server.Config{Registry: registry, Logger: slog.New(slog.DiscardHandler), Metrics: m})
	for _, report := range []string{
		`{"node_id":"node01","phase":"ready","vips":["203.0.113.10"],"config_hash":"` + strings.ReplaceAll(hash1, "1", "2") + `"}`,
		`{"node_id":"node02","phase":"booted"}`,
		`{"node_id":"stray","phase":"booted"}`,
		`{"node_id":`,
	} {
		do(t, h, "POST", api.PathPhoneHome, "application/json", report)
	}
	do(t, h, "GET", api.PathNodes+"/node01", "", "")
	do(t, h, "GET", "/what/a/stranger/likes", "", "")
	if _, err := registry.Operate(t.Context(), "node02", node.EventHold, deployer.Operator{Name: "alice"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := registry.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	scrape := func() string {
		t.Helper()
		w := do(t, h, "GET", api.PathMetrics, "", "")
		if w.Code != 200 || w.Header().Get("Content-Type") != metrics.ContentType {
			t.Fatalf("%d %s", w.Code, w.Header())
		}
		problems, err := promlint.New(strings.NewReader(w.Body.String())).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
		return w.Body.String()
	}
	wants := func(text string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(text, "\nplasmacloud_deployer_"+line) {
				t.Errorf("there is no %s in\n%s", line, text)
			}
		}
	}
	wants(scrape(),
		`build_info{go_version="`, "leader 1\n", "store_usable 1\n",
		`nodes{state="Active"} 1`, `nodes{state="Provisioning"} 1`, `nodes{state="Pending"} 1`, `nodes{state="Failed"} 0`,
		`nodes_reachability{reachability="online"} 2`, `nodes_reachability{reachability="unknown"} 1`,
		`nodes_config{config="drifted"} 1`, `nodes_config{config="unknown"} 2`,
		"nodes_held 1\n", "nodes_undeclared 0\n", "nodes_unreadable 0\n", "nodes_counted_timestamp_seconds ",
		`vips{status="announced"} 1`, `vips{status="unannounced"} 1`, `vips{status="unknown"} 0`,
		`vip_announced_nodes{vip="203.0.113.10/32"} 1`, `vip_announced_nodes{vip="203.0.113.11/32"} 0`,
		`phone_homes_total{code="ok",phase="ready"} 1`, `phone_homes_total{code="unknown_node",phase="booted"} 1`,
		`phone_homes_total{code="bad_request",phase="unknown"} 1`,
		`request_duration_seconds_count{path="/api/v1/nodes/ID",status="200"} 1`,
		`request_duration_seconds_count{path="other",status="404"} 1`,
		`store_write_duration_seconds_count{operation="update",result="ok"} 6`,
	)

	deaf.deaf = true
	if err := registry.Tick(t.Context()); err == nil {
		t.Error("a tick without a list")
	}
	text := scrape()
	wants(text, "leader 1\n", "store_usable 0\n")
	if strings.Contains(text, "plasmacloud_deployer_nodes") {
		t.Errorf("it shows old numbers:\n%s", text)
	}
}
