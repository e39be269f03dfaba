# BIRD as the daemon behind nix-nos.bgp.
{
  lib,
  config,
  ...
}:
let
  ip = import ../../lib/ip.nix;
  bgp = config.nix-nos.bgp;
  inherit
    (import ./announcement.nix {
      inherit lib bgp;
    })
    groups
    ;
  inherit (import ./peer.nix { inherit lib bgp; }) imported;

  lines = lib.concatMapStrings (line: line + "\n");
  indent = lib.concatMapStrings (line: "  ${line}\n");
  boolean = b: if b then "true" else "false";
  set = list: "[ ${lib.concatStringsSep ", " list} ]";
  tuple = text: "(${builtins.replaceStrings [ ":" ] [ "," ] text})";

  ofFamily = family: lib.filter (g: g.family == family) groups;
  protocol = family: "announcements${toString family}";
  families = lib.filter (family: ofFamily family != [ ]) [
    4
    6
  ];

  originate =
    family:
    "protocol static ${protocol family} {\n"
    + indent (
      [ "ipv${toString family};" ]
      ++ lib.concatMap (g: map (prefix: "route ${prefix} blackhole;") g.prefixes) (ofFamily family)
    )
    + "}\n";

  # Attributes are set on the way out: BIRD drops a MED and a next hop that an
  # export filter has not set.
  attributes =
    g:
    map (c: "bgp_community.add(${tuple c});") g.standard
    ++ map (c: "bgp_large_community.add(${tuple c});") g.large
    ++ lib.optional (g.med != null) "bgp_med = ${toString g.med};"
    ++ lib.optional (g.localPref != null) "bgp_local_pref = ${toString g.localPref};"
    ++ lib.optional (g.nextHop != null) "bgp_next_hop = ${g.nextHop};"
    ++ lib.optional (g.prepend > 0) "if outside then { ${
      lib.concatStringsSep " " (lib.genList (_: "bgp_path.prepend(${toString bgp.asn});") g.prepend)
    } }";
  describe =
    family:
    "function describe${toString family}(bool outside) {\n"
    + lib.concatMapStrings (
      g:
      let
        list = attributes g;
      in
      lib.optionalString (list != [ ]) (
        "  if net ~ ${set g.prefixes} then {\n" + lib.concatMapStrings (l: "    ${l}\n") list + "  }\n"
      )
    ) (ofFamily family)
    + "}\n";

  channel =
    name: p: family:
    let
      number = if family == "ipv4" then 4 else 6;
      prefixes = imported p family;
      notFor = lib.concatMap (g: lib.optionals (!(g.hears name)) g.prefixes) (ofFamily number);
      own = [
        "if proto = \"${protocol number}\" then {"
      ]
      ++ lib.optional (notFor != [ ]) "  if net ~ ${set notFor} then reject;"
      ++ [
        "  describe${toString number}(${boolean (p.asn != bgp.asn)});"
        "  accept;"
        "}"
      ];
    in
    [
      "${family} {"
      "  import ${
        if prefixes == null then
          "all"
        else if prefixes == [ ] then
          "none"
        else
          "where net ~ ${set prefixes}"
      };"
    ]
    # What the import drops is counted only where it is kept.
    ++ lib.optionals (p.maxPrefixes != null) [
      "  import keep filtered;"
      "  receive limit ${toString p.maxPrefixes} action disable;"
    ]
    ++ [
      "  export filter {"
    ]
    ++ map (l: "    ${l}") (
      lib.optionals (lib.elem number families) own
      ++ lib.optional bgp.transit "if source = RTS_BGP then accept;"
      ++ [ "reject;" ]
    )
    ++ [
      "  };"
      "};"
    ];

  external = p: p.asn != bgp.asn;
  session =
    name: p:
    # A bare name could be a keyword, in quotes too.
    "protocol bgp 'peer-${name}' {\n"
    + indent (
      lib.optional (p.description != null) "description \"${p.description}\";"
      ++ [
        "local ${
          lib.optionalString (p.localAddress != null) "${ip.canonicalOrGiven p.localAddress} "
        }as ${toString bgp.asn};"
        "neighbor ${ip.canonicalOrGiven p.address} as ${toString p.asn};"
      ]
      ++ lib.optional p.passive "passive on;"
      ++ lib.optional (p.multihop != null) "multihop ${toString p.multihop};"
      ++ lib.optionals (p.ttlSecurity != null) [
        (if external p && p.ttlSecurity == 1 then "direct;" else "multihop ${toString p.ttlSecurity};")
        "ttl security on;"
      ]
      ++ [
        "hold time ${toString p.timers.hold};"
        "keepalive time ${toString p.timers.keepalive};"
        "connect retry time ${toString p.timers.connectRetry};"
        "connect delay time 1;"
      ]
      ++ (
        if p.gracefulRestart.enable then
          [
            "graceful restart on;"
            "graceful restart time ${toString bgp.gracefulRestart.restartTime};"
          ]
        else
          [ "graceful restart off;" ]
      )
      ++ lib.optional p.bfd.enable "bfd on;"
      ++ lib.concatMap (channel name p) p.families
    )
    + "}\n";
in
{
  config = lib.mkIf (bgp.enable && bgp.backend == "bird") {
    services.bird = {
      enable = true;
      config = lib.concatStringsSep "\n" (
        [
          (lines (
            [
              "router id ${toString bgp.routerId};"
              "protocol device {}"
            ]
            ++ lib.optional (lib.any (p: p.bfd.enable) (lib.attrValues bgp.peers)) "protocol bfd {}"
          ))
        ]
        ++ map originate families
        ++ map describe families
        ++ lib.mapAttrsToList session bgp.peers
      );
    };

    assertions = lib.concatLists (
      lib.mapAttrsToList (name: p: [
        {
          assertion = builtins.match "[A-Za-z0-9_.:-]+" name != null;
          message = "nix-nos.bgp.peers.\"${name}\": the bird backend takes a peer's name from letters, digits and _ . : -; rename the peer.";
        }
        {
          assertion = p.description == null || builtins.match "[^\"\n]*" p.description != null;
          message = "nix-nos.bgp.peers.${name}.description: the bird backend can write no double quote and no line break; leave them out.";
        }
      ]) bgp.peers
    );
  };
}
