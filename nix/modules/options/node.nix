# plasmacloud.node: which machine of the cluster a NixOS configuration is.
{ lib, config, ... }:
let
  inherit (config.plasmacloud) cluster node;
  known = node.id != null && cluster.nodes ? ${node.id};
in
{
  imports = [ ./network.nix ];

  options.plasmacloud.node = {
    id = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "node01";
      description = ''
        The node of {option}`plasmacloud.cluster.nodes` that this machine is;
        null: none of them. mkCluster sets it.
      '';
    };
    data = lib.mkOption {
      type = lib.types.raw;
      readOnly = true;
      internal = true;
      description = "The node's entry in the manifest, or null.";
    };
  };

  config = {
    plasmacloud.node.data =
      if known then
        (import ../../lib/cluster-data.nix { inherit lib; } config.plasmacloud).node node.id
      else
        null;

    assertions = lib.optional (node.id != null) {
      assertion = known;
      message = "plasmacloud.node.id: there is no node \"${node.id}\"; name one of plasmacloud.cluster.nodes, or null for a machine outside the cluster.";
    };
  };
}
