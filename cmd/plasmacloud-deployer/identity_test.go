package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/node"
)

// TestIdentity: the manifest says which machine a node is, and another is refused.
func TestIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := strings.Replace(manifest("node01"), `{"macs": [], "serial": null}`, `{"macs": ["52:54:00:00:00:01"], "serial": "S1"}`, 1)
	p := serveProc(t, nil, "--store", filepath.Join(dir, "state.db"), "--manifest", write(t, filepath.Join(dir, "m.json"), m))
	for macs, want := range map[string]string{
		"52:54:00:00:00:02":                   "identity.macs declares 52:54:00:00:00:01, and this machine has 52:54:00:00:00:02",
		"52:54:00:00:00:00,52:54:00:00:00:01": "",
	} {
		request := ready("node01", node.PhaseReady)
		request.Facts = map[string]string{"macs": macs, "serial": "S1"}
		_, err := p.client.PhoneHome(t.Context(), request)
		var refused *api.Error
		if want == "" && err != nil || want != "" && (!errors.As(err, &refused) || refused.Code != node.CodeIdentityMismatch || !strings.Contains(refused.Detail, want)) {
			t.Errorf("%s: %v, want %q", macs, err, want)
		}
	}
}
