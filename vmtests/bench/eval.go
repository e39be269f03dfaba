package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/centra/plasmacloud/nixeval"
)

// sampled is how many nodes are evaluated one by one, of a cluster that has more.
const sampled = 3

// benchEval measures how the evaluation grows with the cluster. Beside it stands
// what nixos-rebuild and colmena do: the whole NixOS of a node, evaluated for
// each node anew. Without nixpkgs that is the stand-in's NixOS, a small part of
// the real one, so the peer is better off here than where it is used.
func benchEval(ctx context.Context, b *bench) ([]figure, error) {
	overrides := map[string]string{"plasmacloud": "path:" + b.repo}
	lib := "the stand-in"
	if own := os.Getenv("PLASMACLOUD_NIXPKGS_LIB"); own != "" {
		lib = "nixpkgs' lib"
		nixpkgs, err := b.nixpkgsAround(own)
		if err != nil {
			return nil, err
		}
		overrides["nixpkgs"] = "path:" + nixpkgs
	}
	var figures []figure
	for _, nodes := range []int{3, 100, 1000, 5000} {
		flake := filepath.Join(b.dir, fmt.Sprintf("cluster-%d", nodes))
		if err := os.MkdirAll(flake, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(flake, "flake.nix"), []byte(clusterFlake(nodes)), 0o600); err != nil {
			return nil, err
		}
		cfg := nixeval.Config{Lib: nixeval.LibOffline, OverrideInputs: overrides}
		if overrides["nixpkgs"] != "" {
			cfg.Lib = nixeval.LibNixpkgs
		}
		evaluator := nixeval.New(cfg)
		var memory int64
		took, err := median(b.runs, func() (time.Duration, error) {
			result, err := evaluator.Eval(ctx, flake)
			if err != nil {
				return 0, err
			}
			if got := len(result.Manifest.Nodes); got != nodes {
				return 0, fmt.Errorf("the manifest has %d nodes, not %d", got, nodes)
			}
			memory = result.Memory
			return result.Took, nil
		})
		if err != nil {
			return nil, err
		}
		node := 0
		one, err := median(sampled, func() (time.Duration, error) {
			start := time.Now()
			ref := fmt.Sprintf("%s#nixosConfigurations.node%d.config.system.build.toplevel.drvPath", flake, node)
			_, err := evaluator.EvalAttr(ctx, ref)
			node++
			return time.Since(start), err
		})
		if err != nil {
			return nil, err
		}
		all := one * time.Duration(nodes)
		work := fmt.Sprintf("%d nodes, %s", nodes, lib)
		figures = append(figures,
			figure{
				work:  work,
				value: fmt.Sprintf("%.2f s, %d MB", took.Seconds(), memory/1e6),
				peer:  "one evaluation a node",
				ratio: float64(took) / float64(all),
			},
			figure{
				work:  "  one evaluation a node",
				value: fmt.Sprintf("%d times %.2f s (median of %d) is %.0f s", nodes, one.Seconds(), sampled, all.Seconds()),
			})
	}
	return figures, nil
}

// nixpkgsAround makes the stand-in for nixpkgs with nixpkgs' own lib in it.
func (b *bench) nixpkgsAround(lib string) (string, error) {
	dir := filepath.Join(b.dir, "nixpkgs")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(b.repo, "nix", "offline"))); err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(dir, "lib")); err != nil {
		return "", err
	}
	return dir, os.CopyFS(filepath.Join(dir, "lib"), os.DirFS(lib))
}

func clusterFlake(nodes int) string {
	return fmt.Sprintf(`{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.plasmacloud.url = "github:centra/plasmacloud";
  inputs.plasmacloud.inputs.nixpkgs.follows = "nixpkgs";
  outputs = { plasmacloud, ... }: plasmacloud.lib.mkCluster {
    modules = [ ({ lib, ... }: {
      plasmacloud.cluster = {
        name = "bench";
        nodes = builtins.listToAttrs (builtins.genList (i: {
          name = "node${toString i}";
          value = {
            role = if i < 3 then "control-plane" else "worker";
            ip = "10.${toString (i / 65536)}.${toString (lib.mod (i / 256) 256)}.${toString (lib.mod i 256)}";
            services = [ "fiberlb" ];
          };
        }) %d);
        bootstrap.initialPeers = [ "node0" "node1" "node2" ];
        bgp.asn = 65001;
        bgp.peers.router = { address = "10.255.255.1"; asn = 65000; };
      };
      plasmacloud.network.fiberlbBgp = { enable = true; vips = [ "203.0.113.10" "203.0.113.11" "203.0.113.12" ]; };
    }) ];
    nixosModules = [ { boot.isContainer = true; } ]; # which needs no disk
  };
}
`, nodes)
}
