# A peer of nix-nos.bgp: its options, and what can be wrong with it whatever the
# daemon.
{
  lib,
  topology ? { },
  bgp,
  # The option that the peers are in.
  where ? "nix-nos.bgp.peers",
}:
let
  inherit (lib) mkOption types;
  ip = import ../../lib/ip.nix;
  asn = import ../../lib/asn.nix;
  community = import ../../lib/community.nix;

  rule = more: {
    options = {
      prefixes = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = [ "10.0.0.0/8" ];
        description = "The prefixes that the rule is for, of either family; null: every route.";
      };
      orLonger = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Take more specific routes inside of {option}`prefixes` too, and not only exactly these.";
      };
      maxLength = mkOption {
        type = types.nullOr (types.ints.between 0 128);
        default = null;
        example = 24;
        description = "With {option}`orLonger`, the longest prefix to take; null: any.";
      };
      action = mkOption {
        type = types.enum [
          "accept"
          "reject"
        ];
        default = "accept";
        example = "reject";
        description = "What becomes of such a route.";
      };
      localPref = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 200;
        description = "Local preference to give to the route; null: left as it is.";
      };
      med = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 100;
        description = "Multi-exit discriminator to give to the route; null: left as it is.";
      };
      communities = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "64512:100" ];
        description = "Communities to add, standard (RFC 1997) or large (RFC 8092); the route keeps its own.";
      };
    }
    // more;
  };
  policy =
    more: description:
    mkOption {
      type = types.either (types.enum [
        "all"
        "none"
      ]) (types.listOf (types.coercedTo types.str (text: { prefixes = [ text ]; }) (types.submodule (rule more))));
      default = "all";
      example = [
        "0.0.0.0/0"
        {
          prefixes = [ "10.0.0.0/8" ];
          orLonger = true;
          localPref = 200;
        }
      ];
      inherit description;
    };
  directions = [
    "import"
    "export"
  ];
in
rec {
  submodule =
    { name, config, ... }:
    {
      options = {
        address = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "192.0.2.1";
          description = ''
            Address of the peer, IPv4 or IPv6. A peer that has the name of a
            node in {option}`nix-nos.topology.nodes` defaults to that node's
            first address. Null only with {option}`interface`.
          '';
        };
        interface = mkOption {
          type = types.nullOr (types.strMatching "[A-Za-z0-9_.-]{1,15}");
          default = null;
          example = "eth0";
          description = ''
            Interface at whose other end the peer is. In place of
            {option}`address` the peer is found by its link-local address, and
            IPv4 routes have IPv6 next hops (RFC 8950); with an
            {option}`address`, that must be a link-local one. The bird backend
            finds a peer only when that connects, so it needs
            {option}`passive` or an {option}`address`; the frr backend always
            finds it, and takes no address. Not with the gobgp backend.
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
        passwordFile = mkOption {
          type = types.nullOr types.path;
          default = null;
          example = "/run/secrets/bgp-router1";
          description = ''
            File with the password of the session (TCP MD5, RFC 2385): 1 to 80
            printable ASCII characters without blanks, a line break at the end
            not counted. The bird backend takes no double quote in it. Root
            reads the file when the daemon starts or reloads; it must not be
            in the Nix store, which every user can read. With the gobgp backend
            every user can ask gobgpd's API for it, too.
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
        import = policy { } ''
          The routes to take from the peer: all, none, or those that a list of
          rules accepts. The first rule that a route fits counts, and a route
          that fits none is rejected. A string is a rule that accepts exactly
          that prefix. The default is for a peer of your own: from somebody
          else's AS take only what you name here (RFC 8212).
        '';
        export =
          policy
            {
              prepend = mkOption {
                type = types.ints.between 0 10;
                default = 0;
                example = 2;
                description = "How often our AS number comes in the path once more; only for an external peer.";
              };
            }
            ''
              The routes to tell the peer, of those that it may hear (see
              {option}`nix-nos.bgp.announcements` and
              {option}`nix-nos.bgp.transit`): all, none, or those that a list of
              rules accepts, as in {option}`import`. What a rule sets comes after
              what the announcement says.
            '';
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
        bfd = {
          enable = mkOption {
            type = types.bool;
            default = false;
            example = true;
            description = "Find out by BFD (RFC 5880) within a second that the peer is gone. The gobgp backend needs gobgpd 4.6 for it.";
          };
          transmitInterval = mkOption {
            type = types.ints.between 10 60000;
            default = 300;
            example = 100;
            description = "Milliseconds from one BFD packet that we send to the next. The peer may ask for slower ones.";
          };
          receiveInterval = mkOption {
            type = types.ints.between 10 60000;
            default = 300;
            example = 100;
            description = "Milliseconds between two BFD packets of the peer, at least.";
          };
          multiplier = mkOption {
            type = types.ints.between 2 255;
            default = 3;
            example = 5;
            description = "Packets of ours in a row that the peer misses before it takes us for gone.";
          };
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
      option = "${where}.${name}";
      peer = ip.parse p.address;
      own = ip.parse p.localAddress;
      internal = p.asn == bgp.asn;
      linkLocal = peer != null && peer.family == 6 && ip.isLinkLocal p.address;
      file = toString p.passwordFile;
    in
    [
      {
        assertion = p.address != null || p.interface != null;
        message = "${option}.address: not set; write the peer's IP address, or in interface the link that it is on.";
      }
      {
        assertion = p.address == null || peer != null;
        message = "${option}.address: \"${toString p.address}\" is not an IP address; write one such as 192.0.2.1 or 2001:db8::1, without a prefix length.";
      }
      {
        assertion = peer == null || ip.isUnicast p.address;
        message = "${option}.address: ${toString p.address} is the address of no single host; write that of the peer.";
      }
      {
        assertion = peer == null || own == null || peer.text != own.text;
        message = "${option}.localAddress: ${toString p.localAddress} is the peer's own address; write this machine's.";
      }
      {
        assertion = peer == null || linkLocal == (p.interface != null);
        message =
          if linkLocal then
            "${option}.interface: not set, and the address ${p.address} counts on one link only; name the interface of that link."
          else
            "${option}.interface: goes only with a link-local address or with none, and ${toString p.address} is another; leave one of the two out.";
      }
      {
        assertion = p.interface == null || p.multihop == null;
        message = "${option}.multihop: a peer that is found by its interface is at the other end of it; leave multihop at null.";
      }
      {
        assertion = p.interface == null || p.ttlSecurity == null || p.ttlSecurity == 1;
        message = "${option}.ttlSecurity: a peer that is found by its interface is one hop away; write 1.";
      }
      {
        assertion = p.passwordFile == null || !lib.hasPrefix "${builtins.storeDir}/" file;
        message = "${option}.passwordFile: ${file} is in the Nix store, which every user can read; write, as a string, the path of a file that is on the machine, such as \"/run/secrets/bgp\".";
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
    ++ map (direction: {
      assertion =
        !lib.isList p.${direction}
        || p.${direction} == [ ]
        || lib.all (r: r.prefixes != null) (lib.init p.${direction});
      message = "${option}.${direction}: a rule for every route is not the last one, and those behind it never count; move it to the end.";
    }) directions
    ++ lib.concatMap (
      direction:
      lib.concatMap (
        r:
        let
          sets =
            r.localPref != null || r.med != null || r.communities != [ ] || r.prepend or 0 > 0;
        in
        [
          {
            assertion = r.prefixes != [ ];
            message = "${option}.${direction}: a rule is for no prefix; leave prefixes at null where it is for all routes.";
          }
          {
            assertion = r.maxLength == null || (r.orLonger && r.prefixes != null);
            message = "${option}.${direction}: maxLength goes with orLonger and prefixes, and a rule has it alone; set them too.";
          }
          {
            assertion = r.action == "accept" || !sets;
            message = "${option}.${direction}: a rule that rejects a route can set nothing of it; leave localPref, med, communities and prepend out.";
          }
          {
            assertion = direction == "import" || internal || r.localPref == null;
            message = "${option}.export: a local preference is not sent to an external peer; leave localPref out, or set med.";
          }
          {
            assertion = !internal || r.prepend or 0 == 0;
            message = "${option}.export: nothing is prepended towards a peer of our own AS; leave prepend out, or set localPref.";
          }
        ]
        ++ map (
          text:
          let
            prefix = ip.parsePrefix text;
          in
          {
            assertion = prefix != null && ip.isNetwork prefix;
            message = "${option}.${direction}: \"${text}\" is not a prefix, or has bits set behind its length; write one such as 203.0.113.0/24 or ::/0.";
          }
        ) (lib.optionals (r.prefixes != null) r.prefixes)
        ++ map (
          text:
          let
            prefix = ip.parsePrefix text;
          in
          {
            assertion =
              r.maxLength == null
              || prefix == null
              || (r.maxLength >= prefix.length && r.maxLength <= prefix.bits);
            message = "${option}.${direction}: no prefix in ${text} has the length ${toString r.maxLength}; write a maxLength from its own length on to ${
              toString (prefix.bits or 128)
            }, in a rule for each IP version.";
          }
        ) (lib.optionals (r.prefixes != null) r.prefixes)
        ++ map (text: {
          assertion = community.isStandard text || community.isLarge text;
          message = "${option}.${direction}: \"${text}\" is not a community; ${community.rule}.";
        }) r.communities
      ) (lib.optionals (lib.isList p.${direction}) p.${direction})
    ) directions;

  # Peers that a daemon could not tell from each other: { <where they are> = [ name ]; }.
  repeated = lib.filterAttrs (_: names: lib.length names > 1) (
    lib.groupBy (
      name:
      let
        p = bgp.peers.${name};
      in
      lib.concatStringsSep " on " (
        lib.optional (p.address != null) (ip.canonicalOrGiven p.address)
        ++ lib.optional (p.interface != null) p.interface
      )
    ) (lib.filter (name: bgp.peers.${name}.address != null || bgp.peers.${name}.interface != null) (lib.attrNames bgp.peers))
  );

  # How the daemons name the peer: by its address, or else by its interface.
  id = p: if p.address == null then p.interface else ip.canonicalOrGiven p.address;

  /*
    A policy ("all", "none" or rules) for routes of a family: null for all, else
    the rules that count there, in their order: [ { prefixes; accept; localPref;
    med; standard; large; prepend; } ], with prefixes null for all, or a list of
    { text; length; bits; longest; }: up to which length. What fits no rule is
    rejected.
  */
  rulesOf =
    policy: family:
    let
      inFamily = lib.filter (prefix: prefix != null && "ipv${toString prefix.family}" == family);
      rules = map (r: {
        inherit (r) localPref med;
        accept = r.action == "accept";
        standard = lib.filter community.isStandard r.communities;
        large = lib.filter community.isLarge r.communities;
        prepend = r.prepend or 0;
        prefixes =
          if r.prefixes == null then
            null
          else
            map (
              prefix:
              prefix
              // {
                longest =
                  if !r.orLonger then
                    prefix.length
                  else if r.maxLength != null then
                    r.maxLength
                  else
                    prefix.bits;
              }
            ) (inFamily (map ip.parsePrefix r.prefixes));
      }) policy;
      # Prefixes that were written one by one are one rule.
      join =
        joined: r:
        let
          before = lib.last joined;
        in
        if
          joined != [ ]
          && before.prefixes != null
          && r.prefixes != null
          && removeAttrs before [ "prefixes" ] == removeAttrs r [ "prefixes" ]
        then
          lib.init joined ++ [ (r // { prefixes = before.prefixes ++ r.prefixes; }) ]
        else
          joined ++ [ r ];
    in
    if policy == "all" then
      null
    else if policy == "none" then
      [ ]
    else
      lib.foldl' join [ ] (lib.filter (r: r.prefixes != [ ]) rules);
}
