# A node's place in the cluster, from plasmacloud.cluster to the machine.
{ lib, config, ... }:
let
  inherit (config.plasmacloud) cluster node;
in
{
  imports = [ ./options/node.nix ];

  config = {
    nix-nos.topology.nodes = lib.mapAttrs (_: n: {
      addresses = [ n.ip ] ++ lib.optional (n.ipv6 != null) n.ipv6;
      inherit (cluster.bgp) asn;
    }) cluster.nodes;

    networking.hostName = lib.mkIf (node.data != null) (lib.mkDefault node.id);

    environment.etc."nixos/secrets/cluster-config.json" = lib.mkIf (node.data != null) {
      text = node.data.clusterConfig;
    };
  };
}
