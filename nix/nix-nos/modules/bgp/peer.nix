# A peer of nix-nos.bgp: its options, and what can be wrong with it whatever the
# daemon.
{
  lib,
  topology ? { },
  bgp,
}:
let
  inherit (lib) mkOption types;
  ip = import ../../lib/ip.nix;
  asn = import ../../lib/asn.nix;
in
{
  submodule =
    { name, config, ... }:
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
        localAddress = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "192.0.2.10";
          description = "This side's address of the session; null: what the kernel chooses.";
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
        ttlSecurity = mkOption {
          type = types.nullOr (types.ints.between 1 254);
          default = null;
          example = 1;
          description = ''
            Take only packets that come from at most this many hops away, by
            their TTL (RFC 5082). The peer must send with a TTL of 255, so it
            needs the same setting.
          '';
        };
        timers = {
          hold = mkOption {
            type = types.ints.between 3 65535;
            default = 90;
            example = 9;
            description = "Seconds without a message after which the session is lost. The lower one of both sides counts.";
          };
          keepalive = mkOption {
            type = types.ints.between 1 21845;
            default = config.timers.hold / 3;
            defaultText = lib.literalMD "a third of {option}`timers.hold`";
            example = 3;
            description = "Seconds from one keepalive message to the next.";
          };
          connectRetry = mkOption {
            type = types.ints.between 1 65535;
            default = 120;
            example = 10;
            description = "Seconds from one try to connect to the next.";
          };
        };
        gracefulRestart.enable = mkOption {
          type = types.bool;
          default = bgp.gracefulRestart.enable;
          defaultText = lib.literalExpression "config.nix-nos.bgp.gracefulRestart.enable";
          example = false;
          description = "Agree with this peer on graceful restart (RFC 4724).";
        };
        families = mkOption {
          type = types.listOf (
            types.enum [
              "ipv4"
              "ipv6"
            ]
          );
          default = [
            "ipv4"
            "ipv6"
          ];
          example = [ "ipv4" ];
          description = "The kinds of unicast routes to exchange.";
        };
        import = mkOption {
          type = types.either (types.enum [
            "all"
            "none"
          ]) (types.listOf types.str);
          default = "all";
          example = [
            "0.0.0.0/0"
            "::/0"
          ];
          description = "The routes to take from the peer: all, none, or those of exactly these prefixes.";
        };
        maxPrefixes = mkOption {
          type = types.nullOr types.ints.positive;
          default = null;
          example = 1000;
          description = ''
            Routes of each family that the peer may send. At one more the
            session ends, and stays down until somebody starts it again. Not
            with the frr backend.
          '';
        };
        bfd.enable = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = "Find out by BFD (RFC 5880) within a second that the peer is gone. Not with the gobgp backend.";
        };
      };
      config = {
        address = lib.mkIf (topology.${name}.addresses or [ ] != [ ]) (
          lib.mkDefault (lib.head topology.${name}.addresses)
        );
        asn = lib.mkIf (topology.${name}.asn or null != null) (lib.mkDefault topology.${name}.asn);
      };
    };

  problems =
    name: p:
    let
      option = "nix-nos.bgp.peers.${name}";
      peer = ip.parse p.address;
      own = ip.parse p.localAddress;
      internal = p.asn == bgp.asn;
    in
    [
      {
        assertion = peer != null;
        message = "${option}.address: \"${p.address}\" is not an IP address; write one such as 192.0.2.1 or 2001:db8::1, without a prefix length.";
      }
      {
        assertion = asn.isUsable p.asn;
        message = "${option}.asn: ${toString p.asn} cannot be used; ${asn.rule}.";
      }
      {
        assertion = p.localAddress == null || (own != null && (peer == null || own.family == peer.family));
        message = "${option}.localAddress: \"${toString p.localAddress}\" must be an IP address of the same family as the peer's, or null.";
      }
      {
        assertion = p.multihop == null || !internal;
        message = "${option}.multihop: the peer is of our own AS, and such a session may cross routers anyway; leave multihop at null.";
      }
      {
        assertion = p.multihop == null || p.ttlSecurity == null;
        message = "${option}.ttlSecurity: goes not with multihop, which sends with a low TTL; write the number of hops in ttlSecurity, and leave multihop at null.";
      }
      {
        assertion = p.timers.keepalive < p.timers.hold;
        message = "${option}.timers.keepalive: ${toString p.timers.keepalive} seconds are not less than timers.hold, ${toString p.timers.hold}; a third of it is usual.";
      }
      {
        assertion = p.families != [ ] && lib.allUnique p.families;
        message = "${option}.families: name \"ipv4\", \"ipv6\" or both, each once.";
      }
    ]
    ++ map (
      text:
      let
        prefix = ip.parsePrefix text;
      in
      {
        assertion = prefix != null && ip.isNetwork prefix;
        message = "${option}.import: \"${text}\" is not a prefix, or has bits set behind its length; write one such as 203.0.113.0/24 or ::/0.";
      }
    ) (if lib.isList p.import then p.import else [ ]);

  # What is imported of a family: null for everything, else a list of prefixes.
  imported =
    p: family:
    if p.import == "all" then
      null
    else if p.import == "none" then
      [ ]
    else
      map (prefix: prefix.text) (
        lib.filter (prefix: prefix != null && "ipv${toString prefix.family}" == family) (
          map ip.parsePrefix p.import
        )
      );
}
