package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/cmd/internal/daemon"
	"github.com/centra/plasmacloud/deployer/api"
	"github.com/centra/plasmacloud/deployer/fleet"
	"github.com/centra/plasmacloud/deployer/node"
	"github.com/centra/plasmacloud/nixeval"
)

func TestSimulate(t *testing.T) {
	url, client := realDeployer(t)
	stdout, stderr, status, err := plasmactl(t, "simulate", "--nodes", "20", "--deployer-url", url, "--storm", "reboot,duplicates", "--storm", "restart", "--own-connections", "-o", "json")
	require.NoError(t, err, stderr)
	require.Zero(t, status)
	var told struct {
		OK   bool           `json:"ok"`
		Acts []fleet.Result `json:"acts"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &told))
	var names []string
	for _, act := range told.Acts {
		names = append(names, act.Act)
	}
	assert.Equal(t, []string{"join", "reboot", "duplicates", "restart", "check"}, names)
	assert.True(t, told.OK)
	assert.Equal(t, map[string]int{node.CodeMachineConflict: 2}, told.Acts[2].Refused)
	nodes, err := client.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, nodes, 20)

	_, _, status, err = plasmactl(t, "simulate", "--nodes", "20", "--deployer-url", url)
	assert.ErrorContains(t, err, "sim-000000 is Active from another run")
	assert.Equal(t, 1, status)
	stdout, _, status, err = plasmactl(t, "simulate", "--nodes", "20", "--deployer-url", url, "--again", "--max-p99", "1ns")
	assert.ErrorContains(t, err, "not as it has to be: 1 faults")
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "over --max-p99 1ns")
	assert.Regexp(t, `join +20 +40 .* FAULT\n`, stdout)

	_, err = client.PhoneHome(t.Context(), api.PhoneHomeRequest{NodeID: "node01", Phase: node.PhaseReady, Role: "worker"})
	require.NoError(t, err)
	_, _, status, err = plasmactl(t, "simulate", "--deployer-url", url, "--again")
	assert.ErrorContains(t, err, "the deployer serves real nodes, node01 for one")
	assert.Equal(t, 1, status)
}

func TestSimulateMistakes(t *testing.T) {
	t.Setenv(deployerURLVariable, "http://production:8080")
	for words, args := range map[string][]string{
		"--deployer-url: name a deployer that serves no real nodes": {},
		"--nodes: want 1 to 1000000":                                {"--nodes", "0"},
		"--share: want more than 0":                                 {"--share", "0"},
		"--storm rain: there is none":                               {"--storm", "rain"},
		"--storm join: there is none":                               {"--storm", "join"},
		"--storm tokens: without --join-token-file":                 {"--storm", "tokens"},
	} {
		_, _, status, err := plasmactl(t, append([]string{"simulate"}, args...)...)
		assert.ErrorContains(t, err, words)
		assert.Equal(t, daemon.ExitUsage, status)
	}
}

// TestSimulatedManifest: what declares the nodes is a manifest like any other.
func TestSimulatedManifest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "manifest.json")
	_, _, _, err := plasmactl(t, "simulate", "--nodes", "3", "--write-manifest", path)
	require.NoError(t, err)
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	m, err := nixeval.DecodeManifest(file)
	require.NoError(t, err)
	assert.Equal(t, []string{"sim-000000", "sim-000001", "sim-000002"}, m.NodeIDs())
}
