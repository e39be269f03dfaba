package labcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/centra/plasmacloud/nix/machines"
	"github.com/centra/plasmacloud/nixeval"
)

// Evaluated is what Nix makes of a cluster.
type Evaluated struct {
	Manifest *nixeval.Manifest
	Machines map[string]nixeval.Machine // by node
}

// Evaluate evaluates clusters by name, each a module in the Nix language with
// options plasmacloud.*, or arguments of mkCluster with such modules; in one go. It
// needs no network.
func Evaluate(ctx context.Context, repo string, clusters map[string]string) (map[string]*Evaluated, error) {
	nix, err := filepath.Abs(filepath.Join(repo, "nix"))
	if err != nil {
		return nil, err
	}
	var modules strings.Builder
	for name, module := range clusters {
		fmt.Fprintf(&modules, "%q = %s;\n", name, module)
	}
	cmd := exec.CommandContext(ctx, "nix", "--extra-experimental-features", "nix-command", "eval", "--impure", "--json", "--expr", fmt.Sprintf(`
		let
		  bare = import %[1]s/offline/lib;
		  lib = bare // { nixosSystem = import %[1]s/offline/nixos.nix { lib = bare; }; };
		  mkCluster = import %[1]s/lib/mk-cluster.nix {
		    inherit lib;
		    nixosModule.imports = [ %[1]s/nix-nos/modules %[1]s/modules/plasmacloud-cluster.nix %[1]s/modules/plasmacloud-deployer.nix
		      %[1]s/modules/plasmacloud-network.nix %[1]s/modules/plasmacloud-phone-home.nix ];
		  };
		  machines = %[3]s;
		in
		lib.mapAttrs (_: given: machines "" (mkCluster (if given ? modules then given else { modules = [ given ]; })).nixosConfigurations) { %[2]s }`,
		nix, modules.String(), machines.Function))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w: %s", err, stderr.String())
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(out, &raw); err != nil {
		return nil, err
	}
	all := map[string]*Evaluated{}
	var errs []error
	for name, r := range raw {
		result, err := nixeval.DecodeMachines(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("cluster %s: %w", name, err))
			continue
		}
		all[name] = &Evaluated{result.Manifest, result.Machines}
	}
	return all, errors.Join(errs...)
}
