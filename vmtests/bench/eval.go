package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/centra/plasmacloud/nixeval"
)

// benchEval measures how the evaluation grows with the cluster.
func benchEval(ctx context.Context, b *bench) ([]figure, error) {
	var figures []figure
	for _, nodes := range []int{3, 100, 1000} {
		flake := filepath.Join(b.dir, fmt.Sprintf("cluster-%d", nodes))
		if err := os.MkdirAll(flake, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(flake, "flake.nix"), []byte(clusterFlake(nodes)), 0o600); err != nil {
			return nil, err
		}
		evaluator := nixeval.New(nixeval.Config{
			Lib:            nixeval.LibOffline,
			OverrideInputs: map[string]string{"plasmacloud": "path:" + b.repo},
		})
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
		figures = append(figures, figure{
			work:  fmt.Sprintf("%d nodes", nodes),
			value: fmt.Sprintf("%.2f s, %d MB", took.Seconds(), memory/1e6),
		})
	}
	return figures, nil
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
  };
}
`, nodes)
}
