{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../../lib/ip.nix;
  asn = import ../../lib/asn.nix;
  community = import ../../lib/community.nix;
  cfg = config.nix-nos.bgp;
  topology = config.nix-nos.topology.nodes;

  peer =
    { name, ... }:
    {
      options = {
        address = mkOption {
          type = types.str;
          example = "192.0.2.1";
          description = ''
            Address of the peer, IPv4 or IPv6. A peer that has the name of a
            node in {option}`nix-nos.topology.nodes` defaults to that node's
            first address.
          '';
        };
        asn = mkOption {
          type = types.int;
          example = 64512;
          description = ''
            AS number of the peer. A peer that has the name of a node in
            {option}`nix-nos.topology.nodes` defaults to that node's.
          '';
        };
        description = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "top of rack, left";
          description = "What the peer is, for those who read the daemon's output.";
        };
        passive = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = ''
            Wait for the peer to connect. Where both sides connect actively,
            the two connections can collide for most of a minute: make one of
            them passive.
          '';
        };
        multihop = mkOption {
          type = types.nullOr (types.ints.between 2 255);
          default = null;
          example = 2;
          description = "TTL for an external peer that is not on a connected network; null: directly connected.";
        };
      };
      config = {
        address = lib.mkIf (topology.${name}.addresses or [ ] != [ ]) (
          lib.mkDefault (lib.head topology.${name}.addresses)
        );
        asn = lib.mkIf (topology.${name}.asn or null != null) (lib.mkDefault topology.${name}.asn);
      };
    };

  announcement = {
    options = {
      prefix = mkOption {
        type = types.str;
        example = "203.0.113.0/24";
        description = "The prefix to announce, with no host bits set.";
      };
      nextHop = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "192.0.2.10";
        description = "Next hop; null: the speaker's own address on each session.";
      };
      communities = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [
          "64512:100"
          "64512:1:2"
        ];
        description = "Communities of the route, standard (RFC 1997) or large (RFC 8092).";
      };
      med = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 100;
        description = "Multi-exit discriminator; null: none is sent.";
      };
      localPref = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 200;
        description = "Local preference towards internal peers; null: the daemon's default.";
      };
    };
  };

  peerProblems = name: p: [
    {
      assertion = ip.isAddress p.address;
      message = "nix-nos.bgp.peers.${name}.address: \"${p.address}\" is not an IP address; write one such as 192.0.2.1 or 2001:db8::1, without a prefix length.";
    }
    {
      assertion = asn.isUsable p.asn;
      message = "nix-nos.bgp.peers.${name}.asn: ${toString p.asn} cannot be used; ${asn.rule}.";
    }
  ];

  announcementProblems =
    a:
    let
      prefix = ip.parsePrefix a.prefix;
      nextHop = ip.parse a.nextHop;
    in
    [
      {
        assertion = prefix != null && ip.isNetwork prefix;
        message =
          if prefix == null then
            "nix-nos.bgp.announcements: \"${a.prefix}\" is not a prefix; write one such as 203.0.113.0/24 or 2001:db8::/48."
          else
            "nix-nos.bgp.announcements: \"${a.prefix}\" has bits set behind its length; write the network's own address, or /${toString prefix.bits} for a single host.";
      }
      {
        assertion = a.nextHop == null || (nextHop != null && (prefix == null || nextHop.family == prefix.family));
        message = "nix-nos.bgp.announcements: the nextHop \"${toString a.nextHop}\" of ${a.prefix} must be an IP address of the same family as the prefix, or null.";
      }
    ]
    ++ map (text: {
      assertion = community.isStandard text || community.isLarge text;
      message = "nix-nos.bgp.announcements: \"${text}\" of ${a.prefix} is not a community; ${community.rule}.";
    }) a.communities;

  repeated = lib.filterAttrs (_: same: lib.length same > 1) (
    lib.groupBy (
      a:
      let
        canonical = ip.canonicalPrefix a.prefix;
      in
      if canonical == null then a.prefix else canonical
    ) cfg.announcements
  );
in
{
  imports = [
    ../topology.nix
    ./gobgp.nix
  ];

  options.nix-nos.bgp = {
    enable = lib.mkEnableOption "a BGP speaker";
    backend = mkOption {
      type = types.enum [ "gobgp" ];
      default = "gobgp";
      example = "gobgp";
      description = "The daemon that speaks BGP.";
    };
    asn = mkOption {
      type = types.nullOr types.int;
      default = null;
      example = 64513;
      description = "AS number of this speaker.";
    };
    routerId = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "192.0.2.10";
      description = "Router identifier, written as an IPv4 address; unique in the AS.";
    };
    peers = mkOption {
      type = types.attrsOf (types.submodule peer);
      default = { };
      example = lib.literalExpression ''
        {
          router1 = {
            address = "192.0.2.1";
            asn = 64512;
          };
        }
      '';
      description = "The speakers to keep a session with, by name.";
    };
    announcements = mkOption {
      type = types.listOf (types.submodule announcement);
      default = [ ];
      example = [ { prefix = "203.0.113.0/24"; } ];
      description = "The routes that this speaker originates.";
    };
    transit = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Tell peers of the routes that other peers announced, as a router does.
        Off, only this speaker's own routes go out: a host with two uplinks
        must not become the way from one to the other.
      '';
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Let peers connect to TCP port 179. Not needed while this side is the one that connects.";
    };
  };

  config = lib.mkIf cfg.enable {
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ 179 ];

    assertions = [
      {
        assertion = cfg.asn != null && asn.isUsable cfg.asn;
        message =
          if cfg.asn == null then
            "nix-nos.bgp.asn: not set, and the speaker needs one; ${asn.rule}."
          else
            "nix-nos.bgp.asn: ${toString cfg.asn} cannot be used; ${asn.rule}.";
      }
      {
        assertion = cfg.routerId != null && ip.isIPv4 cfg.routerId && cfg.routerId != "0.0.0.0";
        message =
          if cfg.routerId == null then
            "nix-nos.bgp.routerId: not set, and the speaker needs one; take an IPv4 address of this machine."
          else
            "nix-nos.bgp.routerId: \"${cfg.routerId}\" is not an identifier; write it as an IPv4 address such as 192.0.2.10.";
      }
    ]
    ++ lib.concatLists (lib.mapAttrsToList peerProblems cfg.peers)
    ++ lib.concatMap announcementProblems cfg.announcements
    ++ lib.mapAttrsToList (prefix: same: {
      assertion = false;
      message = "nix-nos.bgp.announcements: ${prefix} is announced ${toString (lib.length same)} times; keep one of them.";
    }) repeated;
  };
}
