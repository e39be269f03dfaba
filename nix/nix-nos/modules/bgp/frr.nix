# FRR as the daemon behind nix-nos.bgp.
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
  peers = lib.mapAttrsToList (name: p: {
    inherit name;
    p = p // {
      address = ip.canonicalOrGiven p.address;
    };
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

  # Attributes are set on the way out: FRR keeps back a route that is marked
  # no-export before that, and takes another next hop of its own accord.
  outwards =
    { name, external, ... }:
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
        )
        ++ [ "exit" ]
      )
    ) groups
    + lines [
      "route-map to-${name} ${if bgp.transit then "permit" else "deny"} 65535"
      "exit"
    ];

  # By family, since a name is that of a list in each.
  inwards =
    { name, p, ... }:
    lib.concatMapStrings (
      family:
      let
        prefixes = imported p family;
        list = "${if family == "ipv4" then "ip" else "ipv6"} prefix-list from-${name}";
      in
      lib.optionalString (prefixes != null) (
        lines (
          lib.imap1 (n: prefix: "${list} seq ${toString n} permit ${prefix}") prefixes
          ++ lib.optional (prefixes == [ ]) "${list} seq 1 deny any"
        )
      )
    ) p.families;

  neighbor =
    { p, external, ... }:
    map (line: " neighbor ${p.address} ${line}") (
      [ "remote-as ${toString p.asn}" ]
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
      ++ lib.optional p.bfd.enable "bfd"
    );

  family =
    number:
    let
      name = "ipv${toString number}";
    in
    [ " address-family ${name} unicast" ]
    ++ lib.concatMap (
      g:
      lib.optionals (g.family == number) (
        map (prefix: "  network ${prefix} route-map announcements-${toString g.id}") g.prefixes
      )
    ) groups
    ++ lib.concatMap (
      peer:
      lib.optionals (lib.elem name peer.p.families) (
        map (line: "  neighbor ${peer.p.address} ${line}") (
          [
            "activate"
            "route-map to-${peer.name} out"
          ]
          ++ lib.optional (imported peer.p name != null) "prefix-list from-${peer.name} in"
        )
      )
    ) peers
    ++ [ " exit-address-family" ];
in
{
  config = lib.mkIf (bgp.enable && bgp.backend == "frr") {
    services.frr = {
      bgpd.enable = true;
      bfdd.enable = lib.any ({ p, ... }: p.bfd.enable) peers;
      config =
        "bgp no-rib\n"
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
            " bgp graceful-restart restart-time ${toString bgp.gracefulRestart.restartTime}"
          ]
          ++ lib.concatMap neighbor peers
          ++ family 4
          ++ family 6
          ++ [ "exit" ]
        );
    };

    assertions = lib.concatLists (
      lib.mapAttrsToList (name: p: [
        {
          assertion = builtins.match "[A-Za-z0-9_.:-]+" name != null;
          message = "nix-nos.bgp.peers.\"${name}\": the frr backend takes a peer's name from letters, digits and _ . : -; rename the peer.";
        }
        {
          assertion = p.description == null || builtins.match "[^\n]{1,80}" p.description != null;
          message = "nix-nos.bgp.peers.${name}.description: the frr backend writes it on one line of at most 80 characters; shorten it.";
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
