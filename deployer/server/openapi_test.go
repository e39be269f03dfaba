package server_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
	deployerv1 "github.com/centra/plasmacloud/deployer/api/v1"
	"github.com/centra/plasmacloud/deployer/server"
)

// TestOpenAPI: the document is served, has every path, and every path of it is there.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	h, _ := start(t, 1)
	w := do(t, h, http.MethodGet, api.PathOpenAPI, "", "")
	if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), deployerv1.OpenAPI) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for _, path := range []string{api.PathPhoneHome, api.PathNodes, api.PathNodes + "/{node_id}", api.PathEvents, api.PathVIPs, api.PathStatus,
		api.PathTokens, api.PathTokens + "/{name}", api.PathAudit, api.PathHealth} {
		if server.Document().Content.Paths[path] == nil {
			t.Errorf("the document has no %s", path)
		}
	}
	for path, operations := range server.Document().Content.Paths {
		for method := range operations {
			got := do(t, h, strings.ToUpper(method), strings.NewReplacer("{node_id}", "node01", "{name}", "x").Replace(path), "", "")
			if got.Code == http.StatusNotFound || got.Code == http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, got.Code)
			}
		}
	}
}
