package nixeval

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEvalMachines(t *testing.T) {
	eval := New(Config{Lib: LibOffline})
	result, err := eval.EvalMachines(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	plain, err := eval.Eval(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	assert.Equal(t, plain.Manifest.Nodes, result.Manifest.Nodes)
	require.Len(t, result.Machines, 3)

	machine := result.Machines["node02"]
	announcer, err := plain.Manifest.Nodes["node02"].AnnouncerJSON()
	require.NoError(t, err)
	assert.JSONEq(t, string(announcer), string(machine.Announcer))
	require.NotNil(t, machine.BGP)
	assert.Equal(t, "gobgp", machine.BGP.Backend)
	assert.Contains(t, machine.BGP.Config, `"router-id":"10.0.0.12"`)
	assert.Equal(t, 90, machine.BGP.Peers["router1"].Hold)
	assert.False(t, machine.BGP.Injects)

	kept := filepath.Join(t.TempDir(), "kept")
	_, err = New(Config{Lib: LibOffline, Keep: kept}).EvalMachines(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	again, err := New(Config{Nix: "/nonexistent", Kept: kept}).EvalMachines(t.Context(), "..#three-nodes")
	require.NoError(t, err)
	assert.Equal(t, result.Machines, again.Machines)
	assert.Equal(t, LibOffline, again.Lib)
	assert.Equal(t, result.Nix, again.Nix)
	assert.NoFileExists(t, kept)

	_, err = eval.EvalMachines(t.Context(), "..#four-nodes")
	assert.ErrorContains(t, err, "the flake has no cluster four-nodes; it has: three-nodes")
}

// A further module is in every node, and in nothing else: not in the ISO, nor in the manifest.
func TestEvalMachinesWithAModule(t *testing.T) {
	result, err := New(Config{Lib: LibOffline}).EvalMachinesWith(t.Context(), "..#three-nodes", `{ lib, ... }: {
		options.nix-nos.bgp.peers = lib.mkOption { type = lib.types.attrsOf (lib.types.submodule { timers.hold = lib.mkForce 7; }); };
	} # the end`)
	require.NoError(t, err)
	require.Len(t, result.Machines, 3)
	for id, machine := range result.Machines {
		assert.Equal(t, 7, machine.BGP.Peers["router1"].Hold, id)
	}
	_, err = New(Config{Lib: LibOffline}).EvalMachinesWith(t.Context(), "..#three-nodes", "{ nix-nos.none = 1; }")
	assert.ErrorContains(t, err, "nix-nos.none")
}

// What our modules have against one machine is the cluster's concern too. What NixOS has against it, or
// the user, is told, since its daemons can run all the same.
func TestEvalMachinesWithFailedAssertions(t *testing.T) {
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	flake := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(flake, "flake.nix"), []byte(`{
		inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
		inputs.plasmacloud.url = "github:centra/plasmacloud";
		outputs = { plasmacloud, ... }: plasmacloud.lib.mkCluster {
			modules = [ {
				plasmacloud.cluster = {
					name = "mine";
					nodes.a = { role = "control-plane"; ip = "192.0.2.5"; };
					nodes.b = { role = "worker"; ip = "192.0.2.6"; };
					bootstrap.initialPeers = [ "a" ];
				};
			} ];
			nodeModules.b = { boot.isContainer = true; assertions = [ { assertion = false; message = "b is too old"; } ]; };
		};
	}`), 0o600))
	eval := New(Config{Lib: LibOffline, OverrideInputs: map[string]string{"plasmacloud": "path:" + repo}})
	result, err := eval.EvalMachines(t.Context(), flake)
	require.NoError(t, err)
	warnings := result.Warnings()
	require.Len(t, warnings, 3)
	assert.Contains(t, warnings[0], "NixOS refuses to build a: fileSystems")
	assert.Contains(t, warnings[1], "NixOS refuses to build a: boot.loader.grub.devices")
	assert.Equal(t, "NixOS refuses to build b: b is too old", warnings[2])

	_, err = eval.EvalMachinesWith(t.Context(), flake, "{ nix-nos.bgp.enable = true; nix-nos.bgp.asn = 64512; }")
	var failed *AssertionError
	require.ErrorAs(t, err, &failed)
	assert.Contains(t, failed.Messages[0], "a: nix-nos.bgp.routerId")
}

// A cluster that is wrong is evaluated twice, and what there is to warn of is said once.
func TestEvalMachinesWarnsOnce(t *testing.T) {
	// A proxy that is not there makes nixpkgs unreachable wherever the test runs.
	t.Setenv("https_proxy", "http://127.0.0.1:9")
	t.Setenv("NIX_CACHE_HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	repo, err := filepath.Abs("..")
	require.NoError(t, err)
	flake := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(flake, "flake.nix"), []byte(`{
		inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
		inputs.plasmacloud.url = "github:centra/plasmacloud";
		outputs = { plasmacloud, ... }: plasmacloud.lib.mkCluster { modules = [ { plasmacloud.cluster.name = "mine"; } ]; };
	}`), 0o600))
	var warnings []string
	_, err = New(Config{OverrideInputs: map[string]string{"plasmacloud": "path:" + repo}, Warn: func(text string) { warnings = append(warnings, text) }}).EvalMachines(t.Context(), flake)
	require.Error(t, err)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0], "nixpkgs cannot be reached")
}

func TestCopyFlakeWithOtherFiles(t *testing.T) {
	flake := t.TempDir()
	for _, name := range []string{"flake.nix", "cluster.nix"} {
		require.NoError(t, os.WriteFile(filepath.Join(flake, name), []byte("old"), 0o600))
	}
	copied, err := CopyFlake(flake+"#mine", map[string]string{"cluster.nix": "new"})
	require.NoError(t, err)
	defer os.RemoveAll(copied.Dir)
	assert.Equal(t, "path:"+copied.Dir+"/source#mine", copied.Ref)
	text, err := os.ReadFile(filepath.Join(copied.Dir, "source", "cluster.nix"))
	require.NoError(t, err)
	assert.Equal(t, "new", string(text))
	text, err = os.ReadFile(filepath.Join(flake, "cluster.nix"))
	require.NoError(t, err)
	assert.Equal(t, "old", string(text))

	_, err = CopyFlake(flake, map[string]string{"none.nix": ""})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = CopyFlake("github:centra/plasmacloud", nil)
	assert.ErrorContains(t, err, "local folder")
}

func TestRemoveScratch(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	own, err := scratchDir("eval")
	require.NoError(t, err)
	stale := filepath.Join(os.TempDir(), "plasmacloud-eval-999999999-1")
	other := filepath.Join(os.TempDir(), "plasmacloud-else-999999999-1")
	for _, dir := range []string{stale, other} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	require.NoError(t, RemoveScratch())
	assert.DirExists(t, own)
	assert.DirExists(t, other)
	assert.NoDirExists(t, stale)
}
