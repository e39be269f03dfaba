# plasmacloud.cluster: what a cluster is. Evaluated once for the whole cluster,
# and again in the NixOS configuration of each node.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  asn = import ../../nix-nos/lib/asn.nix;
  label = import ../../lib/label.nix;
  mac = import ../../lib/mac.nix;
  endpoint = import ../../lib/endpoint.nix { inherit lib; };
  cfg = config.plasmacloud.cluster;

  peer = import ./peer.nix {
    inherit lib;
    cluster = cfg;
  };
  node = import ./cluster-node.nix { inherit lib peer; };
  plainSubmodule = import ../../lib/plain-submodule.nix { inherit lib; };
  inherit (label) isHostLabel hostRule;
  option = id: "plasmacloud.cluster.nodes.${id}";

  site.options.bgp.peers = peer.option "The routers that the nodes of this site peer with, beside {option}`plasmacloud.cluster.bgp.peers`; one of the same name there gives way.";
  checkSite =
    name: s:
    [
      {
        assertion = isHostLabel name;
        message = "plasmacloud.cluster.sites.${name}: \"${name}\" cannot be a name; ${hostRule}.";
      }
    ]
    ++ peer.sharedProblems "plasmacloud.cluster.sites.${name}.bgp.peers" s.bgp.peers;

  # { <value> = [ <node id> ]; } of what several nodes claim as theirs alone.
  claimedTwice =
    claims:
    lib.mapAttrs (_: map (c: c.id)) (
      lib.filterAttrs (_: same: lib.length same > 1) (
        lib.groupBy (c: c.value) (
          lib.concatLists (
            lib.mapAttrsToList (id: n: map (value: { inherit id value; }) (claims n)) cfg.nodes
          )
        )
      )
    );

  # { <canonical address> = [ { id; from; } ]; }, one entry for each use.
  uses = lib.groupBy (use: use.address) (
    lib.concatLists (
      lib.mapAttrsToList (
        id: n:
        lib.concatMap
          (
            from:
            let
              address = ip.canonical n.${from};
            in
            lib.optional (address != null) {
              inherit address;
              name = "${id}.${from}";
            }
          )
          [
            "ip"
            "ipv6"
          ]
      ) cfg.nodes
    )
  );
  shared = lib.filterAttrs (_: found: lib.length found > 1) uses;

  controlPlanes = lib.length (
    lib.filter (n: n.role == "control-plane") (lib.attrValues cfg.nodes)
  );
in
{
  imports = [ ./iso.nix ];

  options.plasmacloud.cluster = {
    name = mkOption {
      type = types.str;
      example = "three-nodes";
      description = "Name of the cluster, a host name label.";
    };
    nodes = mkOption {
      type = types.attrsOf (plainSubmodule node.submodule);
      default = { };
      apply = lib.mapAttrs (_: node.resolved);
      example = lib.literalExpression ''
        {
          node01 = {
            role = "control-plane";
            ip = "10.0.0.11";
            services = [ "fiberlb" ];
          };
        }
      '';
      description = "The machines of the cluster, by host name.";
    };
    sites = mkOption {
      type = types.attrsOf (types.submodule site);
      default = { };
      example = lib.literalExpression ''
        {
          berlin.bgp.peers.router1 = {
            address = "10.1.0.1";
            asn = 65000;
          };
        }
      '';
      description = "The places where the nodes stand, by name.";
    };
    bootstrap.initialPeers = mkOption {
      type = types.listOf types.str;
      default = lib.attrNames (lib.filterAttrs (_: n: n.role == "control-plane") cfg.nodes);
      defaultText = lib.literalMD "every control-plane node";
      example = [ "node01" ];
      description = "The nodes that start the cluster; all others join them.";
    };
    bgp = {
      asn = mkOption {
        type = types.nullOr types.int;
        default = null;
        example = 65001;
        description = "AS number of the cluster's speakers; null: the cluster speaks no BGP.";
      };
      peers = peer.option "The routers that every node peers with.";
    };
    deployer.url = mkOption {
      type = types.str;
      default = "http://deployer:8080";
      example = "https://deployer.example.org";
      description = "Base URL of the deployer, where nodes phone home.";
    };
  };

  config = lib.mkIf (cfg.nodes != { }) {
    assertions = [
      {
        assertion = isHostLabel cfg.name;
        message = "plasmacloud.cluster.name: \"${cfg.name}\" cannot be a name; ${hostRule}.";
      }
      {
        assertion = controlPlanes > 0;
        message = "plasmacloud.cluster.nodes: no node is a control plane; set role = \"control-plane\" on at least one of them.";
      }
      {
        assertion = cfg.bgp.asn == null || asn.isUsable cfg.bgp.asn;
        message = "plasmacloud.cluster.bgp.asn: ${toString cfg.bgp.asn} cannot be used; ${asn.rule}.";
      }
      {
        assertion = cfg.bootstrap.initialPeers != [ ];
        message = "plasmacloud.cluster.bootstrap.initialPeers: empty, so no node would start the cluster; name at least one control-plane node.";
      }
      {
        assertion = endpoint.isBaseUrl cfg.deployer.url;
        message = "plasmacloud.cluster.deployer.url: \"${cfg.deployer.url}\" is not a base URL; write http://HOST:PORT or https://HOST:PORT, without a user, a query, a fragment, or a slash at the end.";
      }
    ]
    ++ map (id: {
      assertion = cfg.nodes ? ${id} && cfg.nodes.${id}.role == "control-plane";
      message =
        if cfg.nodes ? ${id} then
          "plasmacloud.cluster.bootstrap.initialPeers: ${id} is a worker; name control-plane nodes, or set ${option id}.role = \"control-plane\"."
        else
          "plasmacloud.cluster.bootstrap.initialPeers: there is no node \"${id}\"; name one of plasmacloud.cluster.nodes.";
    }) cfg.bootstrap.initialPeers
    ++ lib.concatLists (lib.mapAttrsToList node.problems cfg.nodes)
    ++ lib.concatLists (
      lib.mapAttrsToList (
        id: n:
        lib.optional (n.site != null && !(cfg.sites ? ${n.site})) {
          assertion = false;
          message = "${option id}.site: there is no site \"${n.site}\"; name one of plasmacloud.cluster.sites, or add it there.";
        }
      ) cfg.nodes
    )
    ++ lib.concatLists (lib.mapAttrsToList checkSite cfg.sites)
    ++ peer.sharedProblems "plasmacloud.cluster.bgp.peers" cfg.bgp.peers
    ++ lib.mapAttrsToList (address: ids: {
      assertion = false;
      message = "plasmacloud.cluster.nodes: identity.macs has ${address} ${
        if lib.allUnique ids then "of ${lib.concatStringsSep " and " ids}" else "twice, of ${lib.head ids}"
      }; a network card is of one machine.";
    }) (claimedTwice (n: map mac.canonicalOrGiven n.identity.macs))
    ++ lib.mapAttrsToList (serial: ids: {
      assertion = false;
      message = "plasmacloud.cluster.nodes: identity.serial \"${serial}\" is that of ${lib.concatStringsSep " and " ids}; leave it at null where the firmware tells no serial number of its own.";
    }) (claimedTwice (n: lib.optional (n.identity.serial != null) n.identity.serial))
    ++ lib.mapAttrsToList (address: found: {
      assertion = false;
      message = "plasmacloud.cluster.nodes: ${address} is the address of ${
        lib.concatMapStringsSep " and " (use: use.name) found
      }; give each node its own.";
    }) shared;

    warnings = lib.optional (controlPlanes > 0 && lib.mod controlPlanes 2 == 0) "plasmacloud.cluster.nodes: ${toString controlPlanes} control-plane nodes survive no more failures than ${toString (controlPlanes - 1)} would; use an odd number.";
  };
}
