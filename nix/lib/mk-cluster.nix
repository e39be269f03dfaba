{
  # nixpkgs' lib, of a flake: with nixosSystem.
  lib,
  # The NixOS module that turns plasmacloud options into a machine.
  nixosModule,
}:
/*
  mkCluster { modules; } -> { nixosConfigurations; plasmacloud; }

  modules: what says what the cluster is, in options plasmacloud.*; evaluated
  once without NixOS, whatever the number of nodes, and again in each node.
  nixosModules: further modules of every node's NixOS configuration.
  nodeModules: { <node id> = module; }, further modules of one.
  isoModules: further modules of the ISO, nixosConfigurations.plasmacloud-iso.
*/
{
  modules,
  nixosModules ? [ ],
  nodeModules ? { },
  isoModules ? [ ],
  system ? "x86_64-linux",
}:
let
  # An inline module has no file that a message could name.
  named =
    argument:
    lib.imap1 (n: lib.setDefaultModuleLocation "${argument} of mkCluster, entry ${toString n}");
  clusterModules = named "modules" modules;

  light = lib.evalModules {
    modules = [
      ../modules/options/assertions.nix
      ../modules/options/network.nix
      {
        _file = ./mk-cluster.nix;
        _module.args.pkgs = throw "a cluster module takes nothing from pkgs, since it is evaluated without a machine: move what needs packages into nixosModules or nodeModules of mkCluster";
      }
    ]
    ++ clusterModules;
  };
  inherit (light.config.plasmacloud) cluster;

  failedAssertions =
    lib.optional (cluster.nodes == { })
      "plasmacloud.cluster.nodes: the cluster has no nodes; define at least one, a control plane."
    ++ map (a: a.message) (lib.filter (a: !a.assertion) light.config.assertions);

  manifest = {
    inherit failedAssertions;
    inherit (light.config) warnings;
    data =
      if failedAssertions == [ ] then
        (import ./cluster-data.nix { inherit lib; } light.config.plasmacloud).manifest
      else
        null;
  };

  strangers = lib.subtractLists (lib.attrNames cluster.nodes) (lib.attrNames nodeModules);

  nodeSystem =
    id: _:
    lib.nixosSystem {
      modules = [
        nixosModule
        {
          _file = ./mk-cluster.nix;
          nixpkgs.hostPlatform = lib.mkDefault system;
          plasmacloud = {
            node.id = id;
            deployer.clusterManifest = manifest;
          };
        }
      ]
      ++ clusterModules
      ++ named "nixosModules" nixosModules
      ++ lib.optional (nodeModules ? ${id}) (
        lib.setDefaultModuleLocation "nodeModules.${id} of mkCluster" nodeModules.${id}
      );
    };
  systems = lib.mapAttrs nodeSystem cluster.nodes;

  isoSystem = lib.nixosSystem {
    modules = [
      ../iso/plasmacloud-iso.nix
      {
        _file = ./mk-cluster.nix;
        nixpkgs.hostPlatform = lib.mkDefault system;
        plasmacloud.iso = {
          clusterName = cluster.name;
          inherit manifest systems;
          inherit (light.config.plasmacloud.iso) sshKeys installFlake;
        };
      }
    ]
    ++ named "isoModules" isoModules;
  };
in
{
  nixosConfigurations =
    lib.throwIf (strangers != [ ])
      "mkCluster: nodeModules has ${toString strangers}, which plasmacloud.cluster.nodes does not have"
      lib.throwIf
      (cluster.nodes ? plasmacloud-iso)
      "mkCluster: a node cannot be called plasmacloud-iso, which is the name of the cluster's ISO"
      (systems // { plasmacloud-iso = isoSystem; });

  plasmacloud.${cluster.name} = manifest;
}
