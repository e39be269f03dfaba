// Package offline carries the stand-in for nixpkgs that lies in this directory,
// so that a program can evaluate a cluster where nixpkgs cannot be fetched. Its
// flake is at the root of FS; written to a directory, it takes the place of the
// input nixpkgs:
//
//	nix eval --override-input nixpkgs path:DIR ...
package offline

import "embed"

// FS holds flake.nix and everything that it imports.
//
//go:embed flake.nix nixos.nix pkgs.nix unbuildable.nix formats lib nixos
var FS embed.FS
