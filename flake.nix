{
  description = "PlasmaCloud: bare-metal nodes and BGP-announced VIPs from one Nix definition";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    nix-nos = {
      url = "path:./nix/nix-nos";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    {
      self,
      nixpkgs,
      nix-nos,
    }:
    let
      inherit (nixpkgs) lib;

      mkCluster = import ./nix/lib/mk-cluster.nix {
        inherit lib;
        nixosModule = self.nixosModules.default;
      };
      threeNodes = mkCluster { modules = [ ./nix/examples/three-nodes/cluster.nix ]; };
    in
    {
      lib = { inherit mkCluster; };

      inherit (threeNodes) plasmacloud nixosConfigurations;
    };
}
