package vmtests

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/centra/plasmacloud/vmtests/scenario"
)

var (
	commandTable = regexp.MustCompile(`(?s)\| command \| meaning \|\n.*?\n\n`)
	commandForm  = regexp.MustCompile("`([^`]+)`")
)

// TestDriver plays what the NixOS VM tests play, by the very scenario.py, on a model of
// their machines; it compares the commands there with those of the engine and of
// docs/lab.md.
func TestDriver(t *testing.T) {
	t.Parallel()
	var expect json.RawMessage
	nix(t, "import ./expect.nix", &expect)
	file := filepath.Join(t.TempDir(), "expect.json")
	require.NoError(t, os.WriteFile(file, expect, 0o600))
	document, err := os.ReadFile("../docs/lab.md")
	require.NoError(t, err)
	table := commandTable.FindString(string(document))
	var engine struct {
		Commands  []string          `json:"commands"`
		Scenarios map[string]string `json:"scenarios"`
		Forms     []string          `json:"forms"`
	}
	engine.Commands, engine.Scenarios = scenario.Commands(), map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(table)) {
		first := strings.SplitN(line, "|", 3)
		require.Len(t, first, 3)
		for _, form := range commandForm.FindAllStringSubmatch(first[1], -1) {
			if word := strings.Fields(form[1])[0]; word != "needs" && word != "each" {
				engine.Forms = append(engine.Forms, form[1])
			}
		}
	}
	var files []string
	for _, pattern := range []string{"scenario/catalogue/*.txtar", "scenarios/testdata/*.txtar"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found)
		files = append(files, found...)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		engine.Scenarios[name] = string(text)
	}
	given, err := json.Marshal(engine)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "python3", "-B", "scenario_test.py", file)
	cmd.Stdin = bytes.NewReader(given)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(string(out))
}

// What a site has decides what sites.json has for it, so nothing is left out unsaid.
func TestSites(t *testing.T) {
	t.Parallel()
	all := scenario.Has{scenario.Nodes: 3, scenario.Routers: 2, scenario.Links: 1, scenario.Power: 1, scenario.Evaluation: 1}
	driver := scenario.Has{scenario.Nodes: 2, scenario.Routers: 1, scenario.Power: 1}
	sites := scenario.Sites()
	catalogue, err := scenario.Catalogue()
	require.NoError(t, err)
	assert.Len(t, sites, len(catalogue))
	for _, s := range catalogue {
		played := map[string]bool{}
		for _, site := range sites[s.Name] {
			assert.Contains(t, []string{"namespaces", "qemu", "vip.nix", "deployer.nix"}, site, s.Name)
			played[site] = true
		}
		for site, may := range map[string]struct {
			has    scenario.Has
			played bool
		}{
			"the lab":    {all, played["namespaces"]},
			"qemu":       {guestHas, played["qemu"]},
			"the driver": {driver, played["vip.nix"] != played["deployer.nix"]},
		} {
			assert.Equal(t, s.Lacks(may.has) == "", may.played, "%s at %s: %s", s.Name, site, s.Lacks(may.has))
		}
	}
}
