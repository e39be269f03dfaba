# nix-nos.topology.bgp: the BGP sessions of this machine, from the topology.
{ lib, config, ... }:
let
  cfg = config.nix-nos.topology;
  derived = import ../lib/topology.nix {
    topology = cfg;
    inherit (cfg) self;
  };
  known = cfg.self != null && cfg.nodes ? ${cfg.self};
  own = cfg.nodes.${cfg.self};
  option = "nix-nos.topology.bgp";

  partners =
    if cfg.bgp == "links" then
      lib.unique (map (end: end.far.node) derived.neighbors)
    else
      derived.colleagues;
  peers = if cfg.bgp == "links" then derived.overLinks else derived.mesh;

  # Leaves that a common spine would tell of each other's routes in vain.
  sameLeaves = lib.filterAttrs (_: found: lib.length found > 1) (
    lib.groupBy (name: toString cfg.nodes.${name}.asn) (
      lib.filter (name: cfg.nodes.${name}.tier == "leaf" && cfg.nodes.${name}.asn != null) partners
    )
  );
in
{
  imports = [
    ./topology.nix
    ./bgp
  ];

  options.nix-nos.topology.bgp = lib.mkOption {
    type = lib.types.enum [
      "none"
      "links"
      "mesh"
    ];
    default = "none";
    example = "links";
    description = ''
      Which peers in {option}`nix-nos.bgp.peers` this machine gets from the
      topology. links: the node at the other end of each of its links, as in a
      fabric of spines and leaves. mesh: every other node of its own AS.

      There is one session for each address family that both have, named after
      the node: `spine1-eth1-ipv4` over a link, `node2-ipv6` in a mesh. Of both
      sides the one with the later name waits for the other. AS number, router
      identifier, transit and firewall of {option}`nix-nos.bgp` follow too. All of
      it are defaults; {option}`nix-nos.bgp.enable` is yours to set.
    '';
  };

  config = lib.mkIf (cfg.bgp != "none") (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = cfg.self != null;
            message = "${option}: this machine, \"${config.networking.hostName}\", is no node of the topology; add it to nix-nos.topology.nodes, or name it in nix-nos.topology.self.";
          }
        ];
      }
      (lib.mkIf known {
        assertions = [
          {
            assertion = own.asn != null;
            message = "${option}: nix-nos.topology.nodes.${cfg.self}.asn is not set; set it, or the asn of its site.";
          }
        ]
        ++ map (name: {
          assertion = cfg.nodes.${name}.asn != null;
          message = "${option}: nix-nos.topology.nodes.${name}.asn is not set, and ${cfg.self} peers with it; set it, or the asn of its site.";
        }) (lib.optionals (cfg.bgp == "links") partners)
        ++ (
          if cfg.bgp == "links" then
            map (end: {
              assertion = derived.meet end.near.addresses end.far.addresses;
              message = "${option}: the link from ${cfg.self} ${end.near.interface} to ${end.far.node} ${end.far.interface} has no address family that both ends have; set its prefixes.";
            }) derived.neighbors
          else
            map (name: {
              assertion = derived.meet own.addresses cfg.nodes.${name}.addresses;
              message = "${option}: ${cfg.self} and ${name} have no address family in common; set addresses of both in nix-nos.topology.nodes.";
            }) partners
        );
        warnings = lib.optionals (cfg.bgp == "links" && own.tier == "spine") (
          lib.mapAttrsToList (
            asn: found:
            "nix-nos.topology: ${lib.concatStringsSep " and " found} are all of AS ${asn}, and drop each other's routes, which have that AS in their path; give each leaf its own."
          ) sameLeaves
        );

        nix-nos.bgp = {
          asn = lib.mkIf (own.asn != null) (lib.mkDefault own.asn);
          routerId = lib.mkIf (derived.routerId != null) (lib.mkDefault derived.routerId);
          transit = lib.mkIf (own.tier == "spine") (lib.mkDefault true);
          openFirewall = lib.mkIf (lib.any (p: p.passive) (lib.attrValues peers)) (lib.mkDefault true);
          peers = lib.mapAttrs (_: lib.mapAttrsRecursive (_: lib.mkDefault)) (
            lib.filterAttrs (_: p: p.asn != null) peers
          );
        };
      })
    ]
  );
}
