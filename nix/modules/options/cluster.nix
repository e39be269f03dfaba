# plasmacloud.cluster: what a cluster is. Evaluated once for the whole cluster,
# and again in the NixOS configuration of each node.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  asn = import ../../nix-nos/lib/asn.nix;
  endpoint = import ../../lib/endpoint.nix { inherit lib; };
  cfg = config.plasmacloud.cluster;

  peer = {
    options = {
      address = mkOption {
        type = types.str;
        example = "10.0.0.1";
        description = "Address of the router, IPv4 or IPv6.";
      };
      asn = mkOption {
        type = types.int;
        example = 65000;
        description = "AS number of the router.";
      };
      description = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "top of rack, left";
        description = "What the router is, for those who read the speaker's output.";
      };
      passive = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Wait for the router to connect. Where both sides connect, make one of them passive.";
      };
      multihop = mkOption {
        type = types.nullOr (types.ints.between 2 255);
        default = null;
        example = 2;
        description = "TTL for a router that is not on a connected network; null: directly connected.";
      };
    };
  };

  peers =
    description:
    mkOption {
      type = types.attrsOf (types.submodule peer);
      default = { };
      example = lib.literalExpression ''
        {
          router1 = {
            address = "10.0.0.1";
            asn = 65000;
          };
        }
      '';
      inherit description;
    };

  node = {
    options = {
      role = mkOption {
        type = types.enum [
          "control-plane"
          "worker"
        ];
        default = "worker";
        example = "control-plane";
        description = "Whether the node runs the cluster's control plane, or only its load.";
      };
      ip = mkOption {
        type = types.str;
        example = "10.0.0.11";
        description = "The address under which the other nodes reach this one.";
      };
      ipv6 = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "2001:db8:0:1::11";
        description = "IPv6 address of a node whose {option}`ip` is IPv4; the next hop of IPv6 VIPs.";
      };
      services = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "fiberlb" ];
        description = "The PlasmaCloud services that the node runs. VIPs are announced by the nodes with fiberlb.";
      };
      bgp = {
        routerId = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "10.0.0.11";
          description = "BGP router identifier; null: the node's {option}`ip`, where that is IPv4.";
        };
        peers = peers "Routers that only this node peers with; they come on top of {option}`plasmacloud.cluster.bgp.peers`, and win over one of the same name.";
      };
    };
  };

  isLabel = name: builtins.match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" name != null;
  label = "use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends (RFC 1123)";

  option = id: "plasmacloud.cluster.nodes.${id}";
  checkAddress = name: address: {
    assertion = ip.isUnicast address && !(ip.isLoopback address);
    message =
      if ip.isAddress address then
        "${name}: \"${address}\" names no single host; write the address of a network interface."
      else
        "${name}: \"${address}\" is not an IP address; write one such as 10.0.0.11 or 2001:db8::11, without a prefix length.";
  };
  isRouterId =
    text: ip.isIPv4 text && text != "0.0.0.0" && lib.head (ip.parse text).groups < 224;
  checkPeer = name: p: [
    (checkAddress "${name}.address" p.address)
    {
      assertion = !(ip.isLinkLocal p.address);
      message = "${name}.address: \"${p.address}\" is link-local, and does not say on which interface; write an address of the router that is valid beyond the link.";
    }
    {
      assertion = asn.isUsable p.asn;
      message = "${name}.asn: ${toString p.asn} cannot be used; ${asn.rule}.";
    }
  ];
  checkPeers = name: set: lib.concatLists (lib.mapAttrsToList (peer: checkPeer "${name}.${peer}") set);

  checkNode =
    id: n:
    [
      {
        assertion = isLabel id;
        message = "${option id}: \"${id}\" cannot be a host name; ${label}.";
      }
      (checkAddress "${option id}.ip" n.ip)
    ]
    ++ lib.optionals (n.ipv6 != null) [
      {
        assertion = ip.isIPv6 n.ipv6 && ip.isUnicast n.ipv6;
        message = "${option id}.ipv6: \"${n.ipv6}\" is not the IPv6 address of a host; write one such as 2001:db8::11, or null.";
      }
      {
        assertion = !(ip.isIPv6 n.ip);
        message = "${option id}.ipv6: ip is an IPv6 address already; leave ipv6 at null.";
      }
    ]
    ++ lib.optional (n.bgp.routerId != null) {
      assertion = isRouterId n.bgp.routerId;
      message = "${option id}.bgp.routerId: \"${n.bgp.routerId}\" is not an identifier; write it as an IPv4 address such as 10.0.0.11, neither 0.0.0.0 nor from 224.0.0.0 on.";
    }
    ++ checkPeers "${option id}.bgp.peers" n.bgp.peers;

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
  options.plasmacloud.cluster = {
    name = mkOption {
      type = types.str;
      example = "three-nodes";
      description = "Name of the cluster, a host name label.";
    };
    nodes = mkOption {
      type = types.attrsOf (types.submodule node);
      default = { };
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
      peers = peers "The routers that every node peers with.";
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
        assertion = isLabel cfg.name;
        message = "plasmacloud.cluster.name: \"${cfg.name}\" cannot be a name; ${label}.";
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
    ++ lib.concatLists (lib.mapAttrsToList checkNode cfg.nodes)
    ++ checkPeers "plasmacloud.cluster.bgp.peers" cfg.bgp.peers
    ++ lib.mapAttrsToList (address: found: {
      assertion = false;
      message = "plasmacloud.cluster.nodes: ${address} is the address of ${
        lib.concatMapStringsSep " and " (use: use.name) found
      }; give each node its own.";
    }) shared;

    warnings = lib.optional (controlPlanes > 0 && lib.mod controlPlanes 2 == 0) "plasmacloud.cluster.nodes: ${toString controlPlanes} control-plane nodes survive no more failures than ${toString (controlPlanes - 1)} would; use an odd number.";
  };
}
