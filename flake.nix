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
      threeNodes = mkCluster {
        modules = [ ./nix/examples/three-nodes/cluster.nix ];
        nixosModules = [ ./nix/examples/three-nodes/machine.nix ];
      };
    in
    {
      lib = {
        inherit mkCluster;
        labCheck = import ./nix/lib/lab-check.nix;
      };

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
        plasmacloud-phone-home = final.callPackage ./nix/package.nix { programs = [ "plasmacloud-phone-home" ]; };
      };

      # Not by the name of plasmacloud too: `nix eval .#plasmacloud` would find
      # the package before the clusters.
      packages = forSystems (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
        # One program alone, for images where space counts.
        phone-home = pkgs.callPackage ./nix/package.nix { programs = [ "plasmacloud-phone-home" ]; };
      });

      apps = forSystems (
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
          # Where this machine has none of them: what the lab and the demo run.
          plasmactl = "${pkgs.writeShellScript "plasmactl" ''
            export PATH=$PATH:${
              lib.makeBinPath [
                pkgs.bash
                pkgs.bird2
                pkgs.coreutils
                pkgs.frr
                pkgs.git
                pkgs.gobgp
                pkgs.gobgpd
                pkgs.iproute2
                pkgs.nftables
                pkgs.nix
                pkgs.util-linux
              ]
            }
            exec ${self.packages.${system}.default}/bin/plasmactl "$@"
          ''}";
          app = description: program: {
            type = "app";
            inherit program;
            meta = { inherit description; };
          };
        in
        {
          default = self.apps.${system}.demo;
          # On this flake's own example, unless another --flake follows.
          demo = app "the whole way, from Nix to BGP route, on this machine" "${pkgs.writeShellScript "plasmacloud-demo" ''
            exec ${plasmactl} demo --flake ${self}#three-nodes "$@"
          ''}";
          plasmactl = app "the operator's command line" plasmactl;
          build-iso = app "builds the ISO that the machines of a cluster boot first" "${pkgs.writeShellScript "plasmacloud-build-iso" ''
            export PATH=$PATH:${
              lib.makeBinPath [
                pkgs.coreutils
                pkgs.gnugrep
                pkgs.gnused
                pkgs.nix
                pkgs.openssl
                pkgs.xorriso
              ]
            }
            exec ${pkgs.bash}/bin/bash ${./nix/iso/build-iso.sh} "$@"
          ''}";
        }
      );

      devShells = forSystems (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.bird2
            pkgs.etcd
            pkgs.frr
            pkgs.git
            pkgs.gobgp
            pkgs.gobgpd
            pkgs.gnumake
            pkgs.go
            pkgs.iproute2
            pkgs.nftables
            pkgs.nix
            pkgs.nixfmt-tree
            pkgs.openvswitch
            pkgs.ovn
            pkgs.python3
            pkgs.qemu
            pkgs.shellcheck
            pkgs.xorriso
          ];
        };
      });

      formatter = forSystems (pkgs: pkgs.nixfmt-tree);

      checks = forSystems (
        pkgs:
        let
          inherit (pkgs.stdenv.hostPlatform) system;
          vmTest =
            file:
            pkgs.testers.runNixOSTest (
              import file {
                inherit pkgs mkCluster;
                nixosModule = self.nixosModules.default;
                cluster = ./nix/examples/three-nodes/cluster.nix;
              }
            );
        in
        {
          package = self.packages.${system}.default;
          phone-home = self.packages.${system}.phone-home;
          evaluation = import ./nix/tests/check.nix { inherit pkgs; };
          go = import ./nix/tests/go.nix { package = self.packages.${system}.default; };
          vm-iso = vmTest ./vmtests/iso.nix;
          vm-deployer = vmTest ./vmtests/deployer.nix;
          vm-vip = vmTest ./vmtests/vip.nix;
          vm-lab = self.lib.labCheck {
            inherit pkgs;
            cluster = threeNodes;
            scenarios = [ "vip-drains" ];
          };
        }
      );

      # What `nix flake init -t` copies: the example, which is tested as it is.
      templates.default = {
        path = ./nix/examples/three-nodes;
        description = "A cluster of three nodes with VIPs, to be changed into your own";
        welcomeText = ''
          Change `cluster.nix` to say what your cluster is, then look at what it means:

              nix run github:centra/plasmacloud#plasmactl -- eval --flake .
        '';
      };

      inherit (threeNodes) plasmacloud nixosConfigurations;
    };
}
