{
  description = "A PlasmaCloud cluster of three nodes";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    plasmacloud.url = "github:centra/plasmacloud";
    plasmacloud.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, plasmacloud, ... }:
    let
      cluster = plasmacloud.lib.mkCluster {
        modules = [ ./cluster.nix ];
        nixosModules = [ ./machine.nix ];
      };
    in
    cluster
    // {
      # `nix flake check` runs the cluster in a virtual machine, and looks whether every
      # router and node does what cluster.nix says.
      checks.x86_64-linux.lab = plasmacloud.lib.labCheck {
        pkgs = nixpkgs.legacyPackages.x86_64-linux;
        inherit cluster;
        scenarios = [ "vip-drains" ];
      };
    };
}
