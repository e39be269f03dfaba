// Package machines carries the Nix function that tells what the daemons of each
// node of a cluster are to read.
package machines

import _ "embed"

// Function is applied to the name of a cluster, or "" where there is one alone, and
// to the nixosConfigurations that have its nodes.
//
//go:embed machines.nix
var Function string
