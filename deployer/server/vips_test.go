package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/deployer/server"
	"github.com/centra/plasmacloud/deployer/store/bolt"
)

func TestVIPs(t *testing.T) {
	t.Parallel()
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	registry, err := deployer.New(t.Context(), deployer.Config{Store: s, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Declare(t.Context(), []node.Declaration{{ID: "node01", Role: "worker"}, {ID: "node02", Role: "worker"}}); err != nil {
		t.Fatal(err)
	}
	if err := registry.DeclareVIPs([]deployer.VIPDeclaration{{VIP: "203.0.113.10/32", Nodes: []string{"node01", "node02"}}}); err != nil {
		t.Fatal(err)
	}
	h := server.New(server.Config{Registry: registry, Logger: quiet})
	var others []string
	for i := range api.MaxVIPs {
		others = append(others, fmt.Sprintf(`"198.51.%d.%d"`, i/256, i%256))
	}
	for _, report := range []string{
		`{"node_id":"node01","phase":"ready","machine_id":"4c4c4544-0044-4a10-8052-b4c04f503531","vips":["203.0.113.10","203.0.113.11"],
			"vip_states":[{"vip":"203.0.113.11","state":"drained","reason":"by uid 0:\n` + strings.Repeat("x", 300) + `"},{"vip":"203.0.113.12","state":"lowered"}],
			"services":[{"name":"gobgpd.service","state":"failed","reason":"exit-code\n"}],"vips_left_out":2}`,
		`{"node_id":"node02","phase":"ready","machine_id":"4c4c4544-0044-4a10-8052-b4c04f503532","vips":[` + strings.Join(others, ",") + `]}`,
	} {
		if w := do(t, h, "POST", api.PathPhoneHome, "application/json", report); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	var n api.Node
	if w := do(t, h, "GET", api.PathNodes+"/node01", "", ""); json.Unmarshal(w.Body.Bytes(), &n) != nil ||
		fmt.Sprint(n.VIPs) != "[203.0.113.10/32 203.0.113.12/32]" || n.VIPsLeftOut != 2 || len(n.VIPStates) != 2 ||
		len(n.VIPStates[0].Reason) > api.MaxReasonBytes || strings.Contains(n.VIPStates[0].Reason, "\n") ||
		fmt.Sprint(n.Services) != "[{gobgpd.service failed exit-code}]" {
		t.Errorf("%s", w.Body)
	}
	w := do(t, h, "GET", api.PathVIPs, "", "")
	var list api.VIPList
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 {
		t.Fatalf("%d %v", w.Code, err)
	}
	// Those that nobody declared have a limit, by address.
	if len(list.VIPs) != 1+api.MaxUndeclaredVIPs || list.LeftOut != api.MaxVIPs+2-api.MaxUndeclaredVIPs {
		t.Errorf("%d and %d left out", len(list.VIPs), list.LeftOut)
	}
	last, err := json.Marshal(list.VIPs[len(list.VIPs)-1])
	if err != nil || string(last) != `{"vip":"203.0.113.10/32","declared":true,"status":"announced","announced":1,"nodes":[`+
		`{"node_id":"node01","declared":true,"state":"announced","reachability":"online"},`+
		`{"node_id":"node02","declared":true,"reachability":"online"}]}` {
		t.Errorf("%s", last)
	}
	// A page comes behind a VIP however that is written.
	for i, v := range list.VIPs[:len(list.VIPs)-1] {
		var page api.VIPList
		w := do(t, h, "GET", api.PathVIPs+"?limit=1&after="+strings.TrimSuffix(v.VIP, "/32"), "", "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.VIPs) != 1 || page.VIPs[0].VIP != list.VIPs[i+1].VIP {
			t.Fatalf("behind %s: %s, %v", v.VIP, w.Body, err)
		}
	}
}
