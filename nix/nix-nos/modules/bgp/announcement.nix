# A route that nix-nos.bgp originates: its options, what can be wrong with it
# whatever the daemon, and the routes as the daemons' modules want them.
{ lib, bgp }:
let
  inherit (lib) mkOption types;
  ip = import ../../lib/ip.nix;
  community = import ../../lib/community.nix;
  option = "nix-nos.bgp.announcements";
in
rec {
  submodule.options = {
    prefix = mkOption {
      type = types.str;
      example = "203.0.113.0/24";
      description = "The prefix to announce, with no host bits set.";
    };
    peers = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [ "router1" ];
      description = "Names of the peers that hear of the route; null: all of them.";
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
      description = ''
        Multi-exit discriminator; null: none is sent, or by FRR the 0 that
        peers assume where there is none.
      '';
    };
    localPref = mkOption {
      type = types.nullOr types.ints.u32;
      default = null;
      example = 200;
      description = "Local preference towards internal peers; null: the daemon's default, which is 100.";
    };
    prepend = mkOption {
      type = types.ints.between 0 10;
      default = 0;
      example = 2;
      description = "How often our AS number comes in the path once more, so that external peers like the route less.";
    };
    aggregate = {
      enable = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Announce the prefix only while a more specific route is in the table,
          an own one or one that a peer announced. Only with the frr backend.
        '';
      };
      summaryOnly = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Keep the more specific routes to ourselves while the prefix is announced.";
      };
    };
  };

  # Where no router takes a route for.
  unusable = map ip.parsePrefix [
    "0.0.0.0/8"
    "127.0.0.0/8"
    "169.254.0.0/16"
    "224.0.0.0/4"
    "255.255.255.255/32"
    "::/127"
    "::ffff:0:0/96"
    "fe80::/10"
    "ff00::/8"
  ];

  hears = name: a: a.peers == null || lib.elem name a.peers;

  problems =
    a:
    let
      prefix = ip.parsePrefix a.prefix;
      nextHop = ip.parse a.nextHop;
      ofOtherFamily = lib.filter (
        name:
        let
          p = bgp.peers.${name};
          address = ip.parse p.address;
        in
        hears name a
        && prefix != null
        && address != null
        && address.family != prefix.family
        && lib.elem "ipv${toString prefix.family}" p.families
      ) (lib.attrNames bgp.peers);
    in
    [
      {
        assertion = prefix != null && ip.isNetwork prefix;
        message =
          if prefix == null then
            "${option}: \"${a.prefix}\" is not a prefix; write one such as 203.0.113.0/24 or 2001:db8::/48."
          else
            "${option}: \"${a.prefix}\" has bits set behind its length; write the network's own address, or /${toString prefix.bits} for a single host.";
      }
      {
        assertion = prefix == null || !lib.any (range: ip.contains range prefix) unusable;
        message = "${option}: ${a.prefix} is in a range that no route goes to (multicast, loopback, link-local or this network), and peers drop it; announce another.";
      }
      {
        assertion =
          nextHop == null
          || ip.isUnicast a.nextHop
          && !ip.isLoopback a.nextHop
          && !(nextHop.family == 6 && ip.isLinkLocal a.nextHop);
        message = "${option}: the nextHop ${toString a.nextHop} of ${a.prefix} is nowhere that a peer could send to; write an address that peers reach, or null.";
      }
      {
        assertion = a.nextHop == null || (nextHop != null && (prefix == null || nextHop.family == prefix.family));
        message = "${option}: the nextHop \"${toString a.nextHop}\" of ${a.prefix} must be an IP address of the same family as the prefix, or null.";
      }
    ]
    ++ [
      {
        assertion = a.aggregate.enable || !a.aggregate.summaryOnly;
        message = "${option}: ${a.prefix} has aggregate.summaryOnly and no aggregate.enable; set both, or none.";
      }
      {
        assertion = !a.aggregate.enable || bgp.backend == "frr";
        message = "${option}: the ${bgp.backend} backend cannot watch for more specific routes of ${a.prefix}; leave aggregate out, which announces the prefix always, or set nix-nos.bgp.backend to \"frr\".";
      }
    ]
    ++ map (text: {
      assertion = community.isStandard text || community.isLarge text;
      message = "${option}: \"${text}\" of ${a.prefix} is not a community; ${community.rule}.";
    }) a.communities
    ++ map (name: {
      assertion = bgp.peers ? ${name};
      message = "${option}: ${a.prefix} is for the peer \"${name}\", and there is none of that name; name one of nix-nos.bgp.peers.";
    }) (if a.peers == null then [ ] else a.peers)
    # A program that originates the routes over gobgpd's API says the next hop.
    ++ lib.optional (bgp.backend != "gobgp" || bgp.gobgp.injectAnnouncements) {
      assertion = a.nextHop != null || ofOtherFamily == [ ];
      message = "${option}: ${a.prefix} has no nextHop, and the session with ${lib.concatStringsSep ", " ofOtherFamily} runs over the other IP version; set nextHop to this machine's IPv${
        toString (prefix.family or "")
      } address.";
    };

  repeated = lib.filterAttrs (_: same: lib.length same > 1) (
    lib.groupBy (
      a:
      let
        canonical = ip.canonicalPrefix a.prefix;
      in
      if canonical == null then a.prefix else canonical
    ) bgp.announcements
  );

  /*
    The routes by what is said of them, so that what a daemon's configuration
    says per route stays a line: [ { id; family; prefixes; nextHop; standard;
    large; med; localPref; prepend; aggregate; hears; } ]. ids are 1, 2, 3, ...
  */
  groups =
    let
      parsed = lib.filter (a: a.parsed != null) (
        lib.imap0 (
          index: a:
          a
          // {
            inherit index;
            parsed = ip.parsePrefix a.prefix;
          }
        ) bgp.announcements
      );
      key =
        a:
        builtins.toJSON [
          a.parsed.family
          a.peers
          a.nextHop
          a.communities
          a.med
          a.localPref
          a.prepend
          a.aggregate
        ];
    in
    lib.imap1 (
      id: same:
      let
        a = lib.head same;
      in
      {
        inherit id;
        inherit (a.parsed) family;
        inherit (a)
          med
          localPref
          prepend
          aggregate
          ;
        prefixes = map (b: b.parsed.text) same;
        nextHop = if a.nextHop == null then null else ip.canonicalOrGiven a.nextHop;
        standard = lib.filter community.isStandard a.communities;
        large = lib.filter community.isLarge a.communities;
        # Where no router takes a route for.
  unusable = map ip.parsePrefix [
    "0.0.0.0/8"
    "127.0.0.0/8"
    "169.254.0.0/16"
    "224.0.0.0/4"
    "255.255.255.255/32"
    "::/127"
    "::ffff:0:0/96"
    "fe80::/10"
    "ff00::/8"
  ];

  hears = name: hears name a;
      }
    ) (lib.sort (a: b: (lib.head a).index < (lib.head b).index) (lib.attrValues (lib.groupBy key parsed)));
}
