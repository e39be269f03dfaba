/*
  From the options plasmacloud.{cluster,network} to what OVN's part of a node
  needs to know. Keys and values are those of ovn-controller(8).

  As cluster-data.nix it can be evaluated for a cluster that fails its assertions.
*/
{ lib }:
{ cluster, network, ... }:
let
  ip = import ../nix-nos/lib/ip.nix;
  duration = import ./duration.nix { inherit lib; };
  cfg = network.prismnetIntegration;

  ofNode =
    id:
    cfg.nodes.${id} or {
      systemId = null;
      encapsulationIp = null;
      bridgeMappings = { };
      gateway = false;
      externalIds = { };
    };

  remote =
    address:
    let
      host = ip.canonicalOrGiven address;
    in
    "${if cfg.tls.enable then "ssl" else "tcp"}:${
      if ip.isIPv6 host then "[${host}]" else host
    }:${toString cfg.southbound.port}";

  remotes = lib.concatMapStringsSep "," remote cfg.southbound.addresses;

  systemId = id: if (ofNode id).systemId != null then (ofNode id).systemId else id;
  encapsulationIp =
    id:
    ip.canonicalOrGiven (
      if (ofNode id).encapsulationIp != null then (ofNode id).encapsulationIp else cluster.nodes.${id}.ip
    );
in
{
  inherit systemId encapsulationIp;

  # UDP, RFC 8926 and RFC 7348.
  encapsulationPort =
    {
      geneve = 6081;
      vxlan = 4789;
    }
    .${cfg.encapsulation.type};

  # The keys of external_ids that have an option of their own.
  reserved = [
    "ovn-bridge-mappings"
    "ovn-cms-options"
    "ovn-encap-ip"
    "ovn-encap-type"
    "ovn-monitor-all"
    "ovn-remote"
    "ovn-remote-probe-interval"
    "plasmacloud-keys"
    "system-id"
  ];

  externalIds =
    id:
    let
      own = ofNode id;
      mappings = cfg.bridgeMappings // own.bridgeMappings;
    in
    cfg.externalIds
    // own.externalIds
    // {
      system-id = systemId id;
      ovn-remote = remotes;
      ovn-encap-type = cfg.encapsulation.type;
      ovn-encap-ip = encapsulationIp id;
      ovn-monitor-all = lib.boolToString cfg.monitorAll;
    }
    // lib.optionalAttrs (mappings != { }) {
      ovn-bridge-mappings = lib.concatStringsSep "," (
        lib.mapAttrsToList (network: bridge: "${network}:${bridge}") mappings
      );
    }
    // lib.optionalAttrs own.gateway { ovn-cms-options = "enable-chassis-as-gw"; }
    // lib.optionalAttrs (cfg.probeInterval != null) {
      ovn-remote-probe-interval = toString (builtins.floor (duration.parse cfg.probeInterval));
    };
}
