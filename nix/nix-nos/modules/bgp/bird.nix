# BIRD as the daemon behind nix-nos.bgp.
{
  lib,
  config,
  pkgs,
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
  inherit (import ./peer.nix { inherit lib bgp; }) rulesOf;
  passwords = import ./passwords.nix { inherit lib bgp pkgs; };

  lines = lib.concatMapStrings (line: line + "\n");
  indent = lib.concatMapStrings (line: "  ${line}\n");
  boolean = b: if b then "true" else "false";
  set = list: "[ ${lib.concatStringsSep ", " list} ]";
  tuple = text: "(${builtins.replaceStrings [ ":" ] [ "," ] text})";

  ofFamily = family: lib.filter (g: g.family == family) groups;
  protocol = family: "announcements${toString family}";
  both = [
    4
    6
  ];
  families = lib.filter (family: ofFamily family != [ ]) both;

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

  setting =
    r:
    lib.optional (r.localPref != null) "bgp_local_pref = ${toString r.localPref};"
    ++ lib.optional (r.med != null) "bgp_med = ${toString r.med};"
    ++ map (c: "bgp_community.add(${tuple c});") r.standard
    ++ map (c: "bgp_large_community.add(${tuple c});") r.large
    ++ lib.genList (_: "bgp_path.prepend(${toString bgp.asn});") r.prepend;
  # A filter's last lines; rules null: take everything.
  decide =
    rules:
    if rules == null then
      [ "accept;" ]
    else
      lib.concatMap (
        r:
        let
          then' = setting r ++ [ (if r.accept then "accept;" else "reject;") ];
          pattern =
            prefix:
            prefix.text
            + lib.optionalString (
              prefix.longest > prefix.length
            ) "{${toString prefix.length},${toString prefix.longest}}";
        in
        if r.prefixes == null then
          then'
        else
          [ "if net ~ ${set (map pattern r.prefixes)} then {" ] ++ map (l: "  ${l}") then' ++ [ "}" ]
      ) rules
      # Behind a rule for everything nothing is left.
      ++ lib.optional (!lib.any (r: r.prefixes == null) rules) "reject;";

  channel =
    name: p: family:
    let
      number = if family == "ipv4" then 4 else 6;
      incoming = rulesOf p.import family;
      notFor = lib.concatMap (g: lib.optionals (!(g.hears name)) g.prefixes) (ofFamily number);
      own = [
        "if proto = \"${protocol number}\" then {"
      ]
      ++ lib.optional (notFor != [ ]) "  if net ~ ${set notFor} then reject;"
      ++ [
        "  describe${toString number}(${boolean (p.asn != bgp.asn)});"
        "}"
      ];
      ours = lib.elem number families;
      others = if bgp.transit then "if source != RTS_BGP then reject;" else "reject;";
    in
    [ "${family} {" ]
    ++ (
      if incoming == null then
        [ "  import all;" ]
      else
        [ "  import filter {" ] ++ map (l: "    ${l}") (decide incoming) ++ [ "  };" ]
    )
    ++ lib.optional (resolve && distant p) "  igp table near${toString number};"
    # What the import drops is counted only where it is kept.
    ++ lib.optionals (p.maxPrefixes != null) [
      "  import keep filtered;"
      "  receive limit ${toString p.maxPrefixes} action disable;"
    ]
    ++ lib.optional (p.address == null && number == 4) "  extended next hop on;"
    ++ [
      "  export filter {"
    ]
    ++ map (l: "    ${l}") (
      if !ours && !bgp.transit then
        [ "reject;" ]
      else
        (if ours then lib.init own ++ [ "} else ${others}" ] else [ others ])
        ++ decide (rulesOf p.export family)
    )
    ++ [
      "  };"
      "};"
    ];

  external = p: p.asn != bgp.asn;
  # Perhaps behind other routers: its next hops are looked up among the routes.
  distant =
    p:
    p.interface == null
    && (!external p || p.multihop != null || (p.ttlSecurity != null && p.ttlSecurity > 1));
  resolve =
    (bgp.installRoutes.enable || bgp.transit) && lib.any distant (lib.attrValues bgp.peers);
  session =
    name: p:
    # A bare name could be a keyword, in quotes too.
    "protocol bgp 'peer-${name}' {\n"
    + indent (
      lib.optional (p.description != null) "description \"${p.description}\";"
      ++ [
        "local ${
          lib.optionalString (p.localAddress != null) "${ip.canonicalOrGiven p.localAddress} "
        }${
          lib.optionalString (bgp.listen.port != 179) "port ${toString bgp.listen.port} "
        }as ${toString bgp.asn};"
      ]
      ++ (
        if p.address == null then
          [
            "neighbor range fe80::/10 as ${toString p.asn};"
            "dynamic name \"peer-${name}-\";"
          ]
        else
          [ "neighbor ${ip.canonicalOrGiven p.address} as ${toString p.asn};" ]
      )
      ++ lib.optional (p.interface != null) "interface \"${p.interface}\";"
      # On the address alone, and not on all of them.
      ++ lib.optional (bgp.listen.addresses != [ ]) "strict bind on;"
      ++ lib.optional (p.passwordFile != null) "password \"${passwords.mark name}\";"
      ++ lib.optional p.passive "passive on;"
      ++ lib.optional (p.multihop != null) "multihop ${toString p.multihop};"
      ++ (
        if p.ttlSecurity != null then
          [
            (if distant p then "multihop ${toString p.ttlSecurity};" else "direct;")
            "ttl security on;"
          ]
        else
          # BIRD takes it for distant else.
          lib.optional (p.interface != null && !external p) "direct;"
      )
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
      ++ lib.optionals p.bfd.enable [
        "bfd {"
        "  min tx interval ${toString p.bfd.transmitInterval} ms;"
        "  min rx interval ${toString p.bfd.receiveInterval} ms;"
        "  multiplier ${toString p.bfd.multiplier};"
        "};"
      ]
      ++ lib.concatMap (channel name p) p.families
    )
    + "}\n";
  # A router that looks for its peers by interface, as FRR does, knows those that
  # it hears a router advertisement of.
  found = lib.filter (p: p.address == null) (lib.attrValues bgp.peers);
  advertise =
    "protocol radv {\n"
    + indent (
      lib.concatMap (p: [
        "interface \"${p.interface}\" {"
        "  min ra interval 3;"
        "  max ra interval 10;"
        "  default lifetime 0;"
        "};"
      ]) found
    )
    + "}\n";

  kernel =
    family:
    "protocol kernel kernel${toString family} {\n"
    + indent (
      lib.optional (
        bgp.installRoutes.maxPaths > 1
      ) "merge paths on limit ${toString bgp.installRoutes.maxPaths};"
      ++ lib.optional resolve "learn;"
      ++ [
        "ipv${toString family} {"
        "  import ${if resolve then "all" else "none"};"
        "  export ${if bgp.installRoutes.enable then "where source = RTS_BGP && dest = RTD_UNICAST" else "none"};"
        "};"
      ]
    )
    + "}\n";

  # Where next hops are looked up, as FRR does: connected networks, which among
  # the other routes would displace announcements, and all routes but the default.
  near =
    family:
    lines [
      "ipv${toString family} table near${toString family};"
      "protocol pipe reach${toString family} {"
      "  table near${toString family};"
      "  peer table master${toString family};"
      "  import where net.len > 0;"
      "  export none;"
      "}"
    ];
  connected = lines [
    "protocol direct {"
    "  ipv4 { table near4; };"
    "  ipv6 { table near6; };"
    "}"
  ];

  file = passwords.file "bird.conf";
  render = passwords.render "bird" "/etc/bird/bird.conf" file "/run/bird";
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
        ++ map kernel (lib.optionals (bgp.installRoutes.enable || resolve) both)
        ++ lib.optionals resolve (map near both ++ [ connected ])
        ++ lib.optional (found != [ ]) advertise
        ++ map originate families
        ++ map describe families
        ++ lib.mapAttrsToList session bgp.peers
      );
    };

    systemd.services.bird.serviceConfig = lib.mkIf passwords.any {
      ExecStartPre = [ "+${render}" ];
      ExecStart = lib.mkForce "${lib.getExe' config.services.bird.package "bird"} -c ${file}";
      ExecReload = lib.mkForce [
        "+${render}"
        "${lib.getExe' config.services.bird.package "birdc"} configure"
      ];
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
        {
          assertion = p.address != null || p.passive;
          message = "nix-nos.bgp.peers.${name}.passive: the bird backend cannot connect to a peer that it knows by interface only; set passive to true where the peer connects, or write its link-local address.";
        }
        {
          assertion =
            bgp.listen.addresses == [ ]
            ||
              p.localAddress != null
              && lib.elem (ip.canonicalOrGiven p.localAddress) (map ip.canonicalOrGiven bgp.listen.addresses);
          message = "nix-nos.bgp.peers.${name}.localAddress: the bird backend listens at a peer's localAddress; set it to one of nix-nos.bgp.listen.addresses, or leave those empty.";
        }
      ]) bgp.peers
    );
  };
}
