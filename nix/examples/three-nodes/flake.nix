{
  description = "A PlasmaCloud cluster of three nodes";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    plasmacloud.url = "github:centra/plasmacloud";
    plasmacloud.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { plasmacloud, ... }:
    plasmacloud.lib.mkCluster {
      modules = [ ./cluster.nix ];
    };
}
