package server_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/centra/plasmacloud/deployer"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// TestLongLists: a list that is asked for whole, and is written in parts, has the same
// lines as its pages, each once and in order; so has that of VIPs, with their number that
// it leaves out.
func TestLongLists(t *testing.T) {
	t.Parallel()
	const nodes = 2_500
	w := newUIWorld(t, func(w *uiWorld) { w.nodes = nodes })
	var vips []deployer.VIPDeclaration
	for i := range nodes {
		vips = append(vips, deployer.VIPDeclaration{VIP: fmt.Sprintf("203.0.%d.%d/32", i/250, i%250), Nodes: []string{"node01"}})
	}
	if err := w.registry.DeclareVIPs(vips); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // more than a list has of VIPs that nobody declared
		stray := make([]string, 600)
		for j := range stray {
			stray[j] = fmt.Sprintf("2001:db8::%x:%x/128", i, j)
		}
		w.phoneHome(fmt.Sprintf("node0%d", i+1), map[string]any{"vips": stray})
	}
	srv := httptest.NewServer(w.handler)
	defer srv.Close()
	client, err := api.NewClient(srv.URL, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := func(path string, into any) {
		t.Helper()
		response, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if media := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || media != "application/json" {
			t.Fatalf("%s: %s, %s", path, response.Status, media)
		}
		if err := json.NewDecoder(response.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	byID := func(a, b api.Node) int { return cmp.Compare(a.ID, b.ID) }
	var list api.NodeList
	whole(api.PathNodes, &list)
	paged, err := client.List(t.Context())
	if err != nil || len(paged) != nodes || len(list.Nodes) != nodes || list.Next != "" || !ascends(paged, byID) || !ascends(list.Nodes, byID) {
		t.Errorf("%d nodes in pages, %d whole, %v", len(paged), len(list.Nodes), err)
	}
	var all api.VIPList
	whole(api.PathVIPs, &all)
	vipsPaged, err := client.VIPs(t.Context())
	byVIP := func(a, b api.VIP) int { return node.CompareVIPs(a.VIP, b.VIP) }
	for _, l := range []api.VIPList{all, vipsPaged} {
		if err != nil || len(l.VIPs) != nodes+1000 || l.LeftOut != 200 || !ascends(l.VIPs, byVIP) {
			t.Errorf("%d VIPs, %d left out, %v", len(l.VIPs), l.LeftOut, err)
		}
	}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, srv.URL+api.PathNodes, nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %s, %v", response.Status, err)
	}
}

// ascends says whether each line comes behind the one before it.
func ascends[T any](lines []T, compare func(a, b T) int) bool {
	for i := 1; i < len(lines); i++ {
		if compare(lines[i-1], lines[i]) >= 0 {
			return false
		}
	}
	return true
}
