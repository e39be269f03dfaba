# FRR as the daemon behind nix-nos.bgp.
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
  inherit (import ./peer.nix { inherit lib bgp; }) id rulesOf;
  passwords = import ./passwords.nix { inherit lib bgp pkgs; };

  lines = lib.concatMapStrings (line: line + "\n");
  peers = lib.mapAttrsToList (name: p: {
    inherit name;
    inherit p;
    id = id p;
    external = p.asn != bgp.asn;
  }) bgp.peers;

  # A route of ours is told by its tag: one that a peer sent has none.
  tagging =
    g:
    lines [
      "route-map announcements-${toString g.id} permit 10"
      " set tag ${toString g.id}"
      "exit"
    ];

  # What a rule of an import or export policy does, at a number of a route-map.
  # Prefix lists of both families have the name of the route-map and the number.
  rule =
    map: number: family: r:
    let
      name = "${map}-${toString number}";
      list = "${if family == "ipv4" then "ip" else "ipv6"} prefix-list ${name}";
      added =
        what: communities:
        lib.optional (communities != [ ]) " set ${what} ${toString communities} additive";
    in
    lines (
      lib.imap1 (
        n: prefix:
        "${list} seq ${toString n} permit ${prefix.text}${
          lib.optionalString (prefix.longest > prefix.length) " le ${toString prefix.longest}"
        }"
      ) (if r.prefixes == null then [ ] else r.prefixes)
      ++ [ "route-map ${map} ${if r.accept then "permit" else "deny"} ${toString number}" ]
      ++ lib.optional (
        r.prefixes != null
      ) " match ${if family == "ipv4" then "ip" else "ipv6"} address prefix-list ${name}"
      ++ lib.optional (r.localPref != null) " set local-preference ${toString r.localPref}"
      ++ lib.optional (r.med != null) " set metric ${toString r.med}"
      ++ added "community" r.standard
      ++ added "large-community" r.large
      ++ lib.optional (
        r.prepend > 0
      ) " set as-path prepend ${toString (lib.genList (_: bgp.asn) r.prepend)}"
      ++ [ "exit" ]
    );
  # The rules of both families, from a number on, and then nothing more.
  rules =
    map: first: policy: families:
    lib.concatStrings (
      lib.imap0 (n: of: rule map (first + n) of.family of.r) (
        lib.concatMap (
          family:
          lib.concatMap (
            r:
            # A rule for every route is one for both families.
            lib.optional (r.prefixes != null || family == lib.head families) { inherit family r; }
          ) (rulesOf policy family)
        ) families
      )
    )
    + lines [
      "route-map ${map} deny 65535"
      "exit"
    ];

  # Attributes are set on the way out: FRR keeps back a route that is marked
  # no-export before that, and takes another next hop of its own accord.
  outwards =
    {
      name,
      p,
      external,
      ...
    }:
    let
      onwards = lib.optional (p.export != "all") " on-match goto ${toString firstRule}";
    in
    lib.concatMapStrings (
      g:
      lines (
        [
          "route-map to-${name} ${if g.hears name then "permit" else "deny"} ${toString g.id}"
          " match tag ${toString g.id}"
        ]
        ++ lib.optionals (g.hears name) (
          lib.optional (g.standard != [ ]) " set community ${toString g.standard}"
          ++ lib.optional (g.large != [ ]) " set large-community ${toString g.large}"
          ++ lib.optional (g.med != null) " set metric ${toString g.med}"
          ++ lib.optional (g.localPref != null) " set local-preference ${toString g.localPref}"
          ++ lib.optional (
            g.nextHop != null
          ) " set ${if g.family == 4 then "ip next-hop" else "ipv6 next-hop global"} ${g.nextHop}"
          ++ lib.optional (external && g.prepend > 0)
            " set as-path prepend ${toString (lib.genList (_: bgp.asn) g.prepend)}"
          ++ onwards
        )
        ++ [ "exit" ]
      )
    ) groups
    + lines (
      [ "route-map to-${name} ${if bgp.transit then "permit" else "deny"} ${toString (firstRule - 1)}" ]
      ++ lib.optionals bgp.transit onwards
      ++ [ "exit" ]
    )
    + lib.optionalString (p.export != "all") (rules "to-${name}" firstRule p.export p.families);
  # Behind the announcements.
  firstRule = 60000;

  inwards =
    { name, p, ... }:
    lib.optionalString (p.import != "all") (rules "from-${name}" 1 p.import p.families);

  neighbor =
    {
      name,
      p,
      external,
      ...
    }@peer:
    map (line: " neighbor ${peer.id} ${line}") (
      [ "${lib.optionalString (p.address == null) "interface "}remote-as ${toString p.asn}" ]
      ++ lib.optional (p.passwordFile != null) "password ${passwords.mark name}"
      ++ lib.optional (p.description != null) "description ${p.description}"
      ++ lib.optional (p.localAddress != null) "update-source ${ip.canonicalOrGiven p.localAddress}"
      ++ lib.optional p.passive "passive"
      ++ lib.optional (p.multihop != null) "ebgp-multihop ${toString p.multihop}"
      ++ lib.optional (p.ttlSecurity != null) "ttl-security hops ${toString p.ttlSecurity}"
      ++ [
        "timers ${toString p.timers.keepalive} ${toString p.timers.hold}"
        "timers connect ${toString p.timers.connectRetry}"
      ]
      ++ [ (if p.gracefulRestart.enable then "graceful-restart" else "graceful-restart-disable") ]
      ++ lib.optional p.bfd.enable "bfd profile ${name}"
    )
    # FRR 10 else drops what a route server passes on; the other daemons take it.
    ++ lib.optional external " no neighbor ${peer.id} enforce-first-as";

  family =
    number:
    let
      name = "ipv${toString number}";
    in
    [ " address-family ${name} unicast" ]
    ++ lib.concatMap (
      g:
      lib.optionals (g.family == number) (
        map (prefix: "  ${if g.aggregate.enable then "aggregate-address" else "network"} ${prefix} route-map announcements-${toString g.id}${
          lib.optionalString g.aggregate.summaryOnly " summary-only"
        }") g.prefixes
      )
    ) groups
    ++ lib.concatMap (
      peer:
      lib.optionals (lib.elem name peer.p.families) (
        map (line: "  neighbor ${peer.id} ${line}") (
          [
            "activate"
            "route-map to-${peer.name} out"
          ]
          ++ lib.optional (peer.p.import != "all") "route-map from-${peer.name} in"
        )
      )
    ) peers
    ++ lib.optionals (bgp.installRoutes.enable && bgp.installRoutes.maxPaths > 1) [
      "  maximum-paths ${toString bgp.installRoutes.maxPaths}"
      "  maximum-paths ibgp ${toString bgp.installRoutes.maxPaths}"
    ]
    ++ [ " exit-address-family" ];

  detection =
    { name, p, ... }:
    lib.optionals p.bfd.enable [
      " profile ${name}"
      "  detect-multiplier ${toString p.bfd.multiplier}"
      "  receive-interval ${toString p.bfd.receiveInterval}"
      "  transmit-interval ${toString p.bfd.transmitInterval}"
      " exit"
    ];
  detections = lib.concatMap detection peers;

  template = "nix-nos/frr.conf";
  file = passwords.file "frr.conf";
  render = passwords.render "frr" "/etc/${template}" file "/";
  # FRR's own reload writes every changed line to a log, and so a password.
  reload = pkgs.writeShellScript "nix-nos-frr-reload" ''
    set -e
    umask 077
    ${render}
    exec ${pkgs.frr}/libexec/frr/frr-reload.py --reload --log-level critical --bindir ${pkgs.frr}/bin ${file}
  '';
in
{
  config = lib.mkIf (bgp.enable && bgp.backend == "frr") {
    services.frr = {
      bgpd.enable = true;
      bgpd.extraOptions =
        lib.optional (bgp.listen.port != 179) "-p ${toString bgp.listen.port}"
        ++ map (address: "-l ${ip.canonicalOrGiven address}") bgp.listen.addresses;
      bfdd.enable = detections != [ ];
      configFile = lib.mkIf passwords.any file;
      config =
        lib.optionalString (!bgp.installRoutes.enable) "bgp no-rib\n"
        + lib.optionalString (detections != [ ]) (lines ([ "bfd" ] ++ detections ++ [ "exit" ]))
        + lib.concatMapStrings tagging groups
        + lib.concatMapStrings outwards peers
        + lib.concatMapStrings inwards peers
        + lines (
          [
            "router bgp ${toString bgp.asn}"
            " bgp router-id ${toString bgp.routerId}"
            " no bgp default ipv4-unicast"
            " no bgp ebgp-requires-policy"
            " no bgp network import-check"
          ]
          ++ lib.optional (bgp.installRoutes.maxPaths > 1) " bgp bestpath as-path multipath-relax"
          ++ [
            " bgp graceful-restart restart-time ${toString bgp.gracefulRestart.restartTime}"
          ]
          ++ lib.concatMap neighbor peers
          ++ family 4
          ++ family 6
          ++ [ "exit" ]
        );
    };

    environment.etc.${template} = lib.mkIf passwords.any {
      text = ''
        hostname ${config.networking.hostName}
        log syslog
        service integrated-vtysh-config
        !
        ${config.services.frr.config}
        !
        end
      '';
    };
    systemd.services.frr = {
      # nixpkgs' unit is never restarted, and a reload gives no daemon new arguments:
      # a changed listen would wait for the next boot.
      reloadIfChanged = lib.mkForce false;
      reloadTriggers = [
        config.environment.etc.${if passwords.any then template else "frr/frr.conf"}.source
      ];
      restartTriggers = lib.mkForce [ config.environment.etc."frr/daemons".source ];
      serviceConfig = lib.mkIf passwords.any {
        ExecStartPre = [ "${render}" ];
        ExecReload = lib.mkForce "${reload}";
      };
    };

    assertions = [
      {
        assertion = !bgp.installRoutes.enable || bgp.listen.addresses == [ ];
        message = "nix-nos.bgp.listen.addresses: the frr backend installs no routes where it listens on chosen addresses only; leave them empty, and keep peers out by the firewall.";
      }
    ]
    ++ lib.concatLists (
      lib.mapAttrsToList (name: p: [
        {
          assertion = builtins.match "[A-Za-z0-9_.:-]+" name != null;
          message = "nix-nos.bgp.peers.\"${name}\": the frr backend takes a peer's name from letters, digits and _ . : -; rename the peer.";
        }
        {
          assertion = p.description == null || builtins.match "[^\n]{1,80}" p.description != null;
          message = "nix-nos.bgp.peers.${name}.description: the frr backend writes it on one line of at most 80 characters; shorten it.";
        }
        # FRR never connects to one.
        {
          assertion = p.address == null || p.interface == null;
          message = "nix-nos.bgp.peers.${name}.address: the frr backend finds the peer on ${toString p.interface} by itself, and cannot be told its link-local address; leave address out.";
        }
        # FRR counts when the next message comes, so all that is in one goes through.
        {
          assertion = p.maxPrefixes == null;
          message = "nix-nos.bgp.peers.${name}.maxPrefixes: the frr backend finds out too late to keep to it; set nix-nos.bgp.backend to \"bird\" or \"gobgp\", or name what you take in import.";
        }
      ]) bgp.peers
    );
  };
}
