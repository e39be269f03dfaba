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
      forSystems =
        f:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: f nixpkgs.legacyPackages.${system});

      # Imported as files, so that messages name them.
      module =
        files:
        {
          imports = files ++ [ nix-nos.nixosModules.default ];
        };

      mkCluster = import ./nix/lib/mk-cluster.nix {
        inherit lib;
        nixosModule = self.nixosModules.default;
      };
      threeNodes = mkCluster { modules = [ ./nix/examples/three-nodes/cluster.nix ]; };
    in
    {
      lib = { inherit mkCluster; };

      nixosModules = {
        default = module [
          ./nix/modules/plasmacloud-cluster.nix
          ./nix/modules/plasmacloud-deployer.nix
          ./nix/modules/plasmacloud-network.nix
          ./nix/modules/plasmacloud-phone-home.nix
        ];
        cluster = module [ ./nix/modules/plasmacloud-cluster.nix ];
        network = module [
          ./nix/modules/plasmacloud-cluster.nix
          ./nix/modules/plasmacloud-network.nix
        ];
        phone-home = module [
          ./nix/modules/plasmacloud-cluster.nix
          ./nix/modules/plasmacloud-phone-home.nix
        ];
        deployer = module [ ./nix/modules/plasmacloud-deployer.nix ];
        nix-nos = nix-nos.nixosModules.default;
      };

      overlays.default = final: _: {
        plasmacloud = final.callPackage ./nix/package.nix { };
      };

      # Not by the name of plasmacloud too: `nix eval .#plasmacloud` would find
      # the package before the clusters.
      packages = forSystems (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
      });

      apps = forSystems (
        pkgs:
        let
          plasmactl = "${self.packages.${pkgs.stdenv.hostPlatform.system}.default}/bin/plasmactl";
        in
        {
          default = self.apps.${pkgs.stdenv.hostPlatform.system}.demo;
          # On this flake's own example, unless another --flake follows.
          demo = {
            type = "app";
            program = "${pkgs.writeShellScript "plasmacloud-demo" ''
              exec ${plasmactl} demo --flake ${self}#three-nodes "$@"
            ''}";
          };
          plasmactl = {
            type = "app";
            program = plasmactl;
          };
        }
      );

      formatter = forSystems (pkgs: pkgs.nixfmt-tree);

      checks = forSystems (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        three-nodes =
          let
            manifest = self.plasmacloud.three-nodes;
          in
          lib.throwIf (manifest.failedAssertions != [ ] || manifest.warnings != [ ])
            (lib.concatStringsSep "\n" (manifest.failedAssertions ++ manifest.warnings))
            (
              pkgs.runCommand "three-nodes.json" {
                json = builtins.toJSON manifest.data;
                passAsFile = [ "json" ];
              } "cp \"$jsonPath\" $out"
            );
      });

      inherit (threeNodes) plasmacloud nixosConfigurations;
    };
}
