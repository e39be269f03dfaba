{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../../lib/ip.nix;
  asn = import ../../lib/asn.nix;
  cfg = config.nix-nos.bgp;
  peer = import ./peer.nix {
    inherit lib;
    topology = config.nix-nos.topology.nodes;
    bgp = cfg;
  };
  announcement = import ./announcement.nix {
    inherit lib;
    bgp = cfg;
  };
in
{
  imports = [
    ../topology.nix
    ./bird.nix
    ./frr.nix
    ./gobgp.nix
  ];

  options.nix-nos.bgp = {
    enable = lib.mkEnableOption "a BGP speaker";
    backend = mkOption {
      type = types.enum [
        "gobgp"
        "bird"
        "frr"
      ];
      default = "gobgp";
      example = "bird";
      description = ''
        The daemon that speaks BGP. Peers see the same session and the same
        routes whichever it is; what a daemon cannot do is an error.
      '';
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
      type = types.attrsOf (types.submodule peer.submodule);
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
      type = types.listOf (types.submodule announcement.submodule);
      default = [ ];
      example = [ { prefix = "203.0.113.0/24"; } ];
      description = "The routes that this speaker originates.";
    };
    gracefulRestart = {
      enable = mkOption {
        type = types.bool;
        default = true;
        example = false;
        description = "Ask the peers to keep our routes while the daemon restarts (RFC 4724).";
      };
      restartTime = mkOption {
        type = types.ints.between 1 4095;
        default = 120;
        example = 30;
        description = "Seconds that a peer keeps our routes for, at most.";
      };
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
    installRoutes = {
      enable = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Put the routes that peers announced into the kernel's main table, so
          that this machine sends packets by them. Not with the gobgp backend.
        '';
      };
      maxPaths = mkOption {
        type = types.ints.between 1 64;
        default = 1;
        example = 2;
        description = ''
          How many equally good ways to a prefix the kernel gets at once (ECMP).
          Equally good are routes whose AS paths are of the same length,
          whatever is in them, and whose other attributes do not decide.
        '';
      };
    };
    listen = {
      addresses = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "192.0.2.10" ];
        description = ''
          Own addresses on which peers can connect; empty: all of them. The bird
          backend listens for each peer where that peer's
          {option}`localAddress` is, so each peer needs one of these there.
        '';
      };
      port = mkOption {
        type = types.port;
        default = 179;
        example = 1179;
        description = "TCP port on which peers can connect.";
      };
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Let peers connect to the TCP port {option}`nix-nos.bgp.listen.port`,
        and send BFD packets (UDP ports 3784 and 4784) where one has BFD. The
        former is not needed while this side is the one that connects.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.listen.port ];
    # BFD on one link, and over several hops (RFC 5881, RFC 5883).
    networking.firewall.allowedUDPPorts =
      lib.mkIf (cfg.openFirewall && lib.any (p: p.bfd.enable) (lib.attrValues cfg.peers))
        [
          3784
          4784
        ];

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
        # FRR refuses a peer with one of multicast or above.
        assertion =
          cfg.routerId != null
          && ip.isIPv4 cfg.routerId
          && cfg.routerId != "0.0.0.0"
          && lib.head (ip.parse cfg.routerId).groups < 224;
        message =
          if cfg.routerId == null then
            "nix-nos.bgp.routerId: not set, and the speaker needs one; take an IPv4 address of this machine."
          else
            "nix-nos.bgp.routerId: \"${cfg.routerId}\" is not an identifier; write it as an IPv4 address below 224.0.0.0, such as 192.0.2.10.";
      }
    ]
    ++ map (text: {
      assertion = ip.isAddress text;
      message = "nix-nos.bgp.listen.addresses: \"${text}\" is not an IP address; write one of this machine's such as 192.0.2.10, without a prefix length.";
    }) cfg.listen.addresses
    ++ [
      {
        assertion = cfg.listen.port > 0;
        message = "nix-nos.bgp.listen.port: 0 is not a port; the usual one is 179.";
      }
      {
        assertion = cfg.installRoutes.enable || cfg.installRoutes.maxPaths == 1;
        message = "nix-nos.bgp.installRoutes.maxPaths: counts the ways that the kernel gets, and it gets none; set installRoutes.enable, or leave maxPaths at 1.";
      }
    ]
    ++ lib.concatLists (lib.mapAttrsToList peer.problems cfg.peers)
    ++ lib.mapAttrsToList (where: names: {
      assertion = false;
      message = "nix-nos.bgp.peers: ${lib.concatStringsSep " and " names} are at the same place, ${where}; keep one of them, or correct an address.";
    }) peer.repeated
    ++ lib.concatMap announcement.problems cfg.announcements
    ++ lib.mapAttrsToList (prefix: same: {
      assertion = false;
      message = "nix-nos.bgp.announcements: ${prefix} is announced ${toString (lib.length same)} times; keep one of them.";
    }) announcement.repeated;
  };
}
