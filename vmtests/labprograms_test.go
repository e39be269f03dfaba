package vmtests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// evaluatedWith is a file with what the example evaluates to with a further cluster module.
func evaluatedWith(t *testing.T, module string) string {
	t.Helper()
	var evaluated json.RawMessage
	nix(t, `
		let
		  bare = import ../nix/offline/lib;
		  lib = bare // { nixosSystem = import ../nix/offline/nixos.nix { lib = bare; }; };
		  cluster = import ../nix/lib/mk-cluster.nix {
		    inherit lib;
		    nixosModule.imports = [ ../nix/nix-nos/modules ../nix/modules/plasmacloud-cluster.nix ../nix/modules/plasmacloud-deployer.nix
		      ../nix/modules/plasmacloud-network.nix ../nix/modules/plasmacloud-phone-home.nix ];
		  } { modules = [ ../nix/examples/three-nodes/cluster.nix (`+module+`) ]; };
		in import ../nix/machines/machines.nix "" cluster.nixosConfigurations`, &evaluated)
	file := filepath.Join(readableDir(t), "machines.json")
	require.NoError(t, os.WriteFile(file, evaluated, 0o644))
	return file
}

// In nixpkgs, gobgpd and gobgp are two packages.
func TestLabWithProgramsApart(t *testing.T) {
	t.Parallel()
	alone := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(bin, "v4", "gobgpd"), filepath.Join(alone, "gobgpd")))
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "plasmactl"), "lab", "run", "--evaluated", evaluatedWith(t, "{ }"), "--name", "t-apart",
		"--gobgpd", filepath.Join(alone, "gobgpd"), "--routers", "gobgp")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(bin, "v4")+":/usr/bin:/bin")
	out, errs, status := runAs(t, cmd, nil)
	require.Zero(t, status, "%s%s", out, errs)
	assert.Contains(t, errs, "NixOS refuses to build node01, node02, node03: fileSystems")
	assert.Empty(t, left(t, "t-apart"))
}

// What is missing is told before anything starts, and nothing that the cluster does not need.
func TestLabWithProgramsMissing(t *testing.T) {
	t.Parallel()
	evaluated := evaluatedWith(t, `{ lib, ... }: { plasmacloud.cluster.bgp.peers = lib.mkForce {
		frr1 = { address = "10.0.0.1"; asn = 65000; };
		gobgp1 = { address = "10.0.0.2"; asn = 65000; };
	}; }`)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "plasmactl"), "lab", "run", "--evaluated", evaluated, "--name", "t-missing", "split-from-router")
	cmd.Env = []string{"PATH=/nonexistent"}
	_, errs, status := runAs(t, cmd, nil)
	assert.Equal(t, 69, status)
	assert.Contains(t, errs, "\n- gobgpd, for the nodes (package gobgpd of Debian, gobgpd of nixpkgs)")
	assert.Contains(t, errs, "\n- gobgp, for router gobgp1, where --routers takes no others (package gobgpd of Debian, gobgp of nixpkgs)")
	assert.Contains(t, errs, "\n- vtysh, for router frr1")
	assert.NotContains(t, errs, "bird")
}
