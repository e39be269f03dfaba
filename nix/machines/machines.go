// Package machines carries the Nix function that tells what the daemons of each
// node of a cluster are to read.
package machines

import (
	_ "embed"
	"fmt"
)

// Function is applied to the name of a cluster, or "" where there is one alone, and
// to the nixosConfigurations that have its nodes.
//
//go:embed machines.nix
var Function string

// Apply is Function applied to the name, as a function of nixosConfigurations. If the
// module is not "", each node has this text as a further NixOS module.
func Apply(cluster, module string) string {
	if module == "" {
		return fmt.Sprintf("(%s) %q", Function, cluster)
	}
	return fmt.Sprintf(`systems: (%s) %q (builtins.mapAttrs (_: s:
		if s.options.plasmacloud ? node then s.extendModules { modules = [ (
%s
		) ]; } else s) systems)`, Function, cluster, module)
}
