# nix-nos.topology: the network around this machine, as data. What follows from
# it is in topology-bgp.nix and topology-interfaces.nix.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../lib/ip.nix;
  asn = import ../lib/asn.nix;
  addressing = import ./interfaces-addressing.nix { inherit lib; };
  cfg = config.nix-nos.topology;
  option = "nix-nos.topology.nodes";

  asnOption =
    description:
    mkOption {
      type = types.nullOr types.int;
      default = null;
      example = 64512;
      inherit description;
    };

  node =
    { config, ... }:
    {
      options = {
        addresses = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [
            "192.0.2.1"
            "2001:db8::1"
          ];
          description = "Addresses of the node, the preferred one first.";
        };
        asn = asnOption "The autonomous system that the node belongs to; null: that of its site.";
        site = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "berlin";
          description = "Where the node is, one of {option}`nix-nos.topology.sites`.";
        };
        tier = mkOption {
          type = types.nullOr (
            types.enum [
              "spine"
              "leaf"
            ]
          );
          default = null;
          example = "spine";
          description = ''
            The node's place in a fabric. A spine tells its neighbors of the
            routes that others announced ({option}`nix-nos.bgp.transit`).
          '';
        };
      };
      config.asn = lib.mkIf (config.site != null && cfg.sites.${config.site}.asn or null != null) (
        lib.mkDefault cfg.sites.${config.site}.asn
      );
    };

  # The address that an end gets of a prefix: of a pair of addresses the first or
  # the second, else the first or the second behind that of the network.
  addressAt =
    position: text:
    let
      prefix = ip.parsePrefix text;
      pair = prefix.bits - prefix.length == 1;
    in
    lib.optional (
      prefix != null && prefix.bits != prefix.length
    ) "${ip.host prefix (if pair then position else position + 1)}/${toString prefix.length}";

  end =
    prefixes: position:
    mkOption {
      type = types.submodule {
        options = {
          node = mkOption {
            type = types.str;
            example = "spine1";
            description = "The node at this end.";
          };
          interface = mkOption {
            type = types.str;
            example = "eth1";
            description = "The interface that the link is plugged into.";
          };
          addresses = mkOption {
            type = types.listOf types.str;
            default = lib.concatMap (addressAt position) prefixes;
            defaultText = lib.literalMD (
              if position == 0 then
                "the first address for a host in each of {option}`nix-nos.topology.links.*.prefixes`"
              else
                "the second address for a host in each of {option}`nix-nos.topology.links.*.prefixes`"
            );
            example = [ "192.0.2.${toString position}/31" ];
            description = "The addresses of the interface, each with its prefix length.";
          };
        };
      };
      description = "${if position == 0 then "One" else "The other"} end of the link.";
    };
  link =
    { config, ... }:
    {
      options = {
        a = end config.prefixes 0;
        b = end config.prefixes 1;
        prefixes = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [
            "192.0.2.0/31"
            "2001:db8::/127"
          ];
          description = "The networks of the link, from which both ends get an address.";
        };
      };
    };

  nodeProblems =
    name: node:
    map (address: {
      assertion = ip.isAddress address;
      message = "${option}.${name}.addresses: \"${address}\" is not an IP address; write one such as 192.0.2.1 or 2001:db8::1, without a prefix length.";
    }) node.addresses
    ++ lib.optional (node.asn != null) {
      assertion = asn.isUsable node.asn;
      message = "${option}.${name}.asn: ${toString node.asn} cannot be used; ${asn.rule}.";
    }
    ++ lib.optional (node.site != null) {
      assertion = cfg.sites ? ${node.site};
      message = "${option}.${name}.site: there is no site \"${node.site}\"; name one of nix-nos.topology.sites.";
    };

  linkName =
    n: l:
    "nix-nos.topology.links: entry ${toString n} (${l.a.node} ${l.a.interface}, ${l.b.node} ${l.b.interface})";
  linkProblems =
    n: l:
    let
      name = linkName n l;
      networks =
        end: lib.filter (p: p != null) (map (text: ip.parsePrefix text) end.addresses);
      endProblems =
        end:
        [
          {
            assertion = cfg.nodes ? ${end.node};
            message = "${name}: there is no node \"${end.node}\"; name one of ${option}.";
          }
          {
            assertion = addressing.isName end.interface;
            message = "${name}: \"${end.interface}\" cannot be the name of an interface; ${addressing.nameRule}.";
          }
        ]
        ++ map (text: {
          assertion = ip.parsePrefix text != null;
          message = "${name}: \"${text}\" is not an address with a prefix length; write one such as 192.0.2.0/31.";
        }) end.addresses;
    in
    [
      {
        assertion = l.a.node != l.b.node;
        message = "${name}: both ends are at ${l.a.node}; a link joins two nodes.";
      }
    ]
    ++ endProblems l.a
    ++ endProblems l.b
    ++ map (
      text:
      let
        prefix = ip.parsePrefix text;
      in
      {
        assertion = prefix != null && ip.isNetwork prefix && prefix.length < prefix.bits;
        message = "${name}: the prefix \"${text}\" is no network for two; write one such as 192.0.2.0/31 or 2001:db8::/127, with no bits set behind its length.";
      }
    ) l.prefixes
    ++ lib.concatMap (
      near:
      lib.concatMap (
        far:
        lib.optional (near.family == far.family) {
          assertion = ip.contains near far && ip.contains far near && near.text != far.text;
          message =
            if near.text == far.text then
              "${name}: both ends have ${near.text}; give each its own address."
            else
              "${name}: ${near.text} and ${far.text} are not in one network; give both ends addresses of one.";
        }
      ) (networks l.b)
    ) (networks l.a);

  # { <what> = [ where ]; } where there is more than one.
  repeated =
    uses:
    lib.filterAttrs (_: found: lib.length found > 1) (
      lib.mapAttrs (_: map (use: use.value)) (lib.groupBy (use: use.name) uses)
    );
  plugs = lib.concatLists (
    lib.imap1 (
      n: l:
      map (end: lib.nameValuePair "${end.node} ${end.interface}" (toString n)) [
        l.a
        l.b
      ]
    ) cfg.links
  );
  addressUses =
    lib.concatLists (
      lib.mapAttrsToList (
        name: node:
        map (address: lib.nameValuePair address "${option}.${name}") (
          lib.unique (lib.filter (a: a != null) (map ip.canonical node.addresses))
        )
      ) cfg.nodes
    );
  linkAddressUses = lib.concatLists (
    lib.imap1 (
      n: l:
      lib.concatMap (
        end:
        lib.concatMap (
          text:
          let
            prefix = ip.parsePrefix text;
          in
          lib.optional (prefix != null) (
            lib.nameValuePair (lib.head (lib.splitString "/" prefix.text)) "entry ${toString n}"
          )
        ) end.addresses
      ) [ l.a l.b ]
    ) cfg.links
  );
in
{
  options.nix-nos.topology = {
    self = mkOption {
      type = types.nullOr types.str;
      default = if cfg.nodes ? ${config.networking.hostName} then config.networking.hostName else null;
      defaultText = lib.literalMD "{option}`networking.hostName`, where that is a node";
      example = "leaf1";
      description = "Which of the nodes this machine is; null: none of them.";
    };
    nodes = mkOption {
      type = types.attrsOf (types.submodule node);
      default = { };
      example = lib.literalExpression ''
        {
          spine1 = {
            addresses = [ "192.0.2.1" ];
            asn = 64512;
            tier = "spine";
          };
        }
      '';
      description = ''
        The machines of the network, by name. Other modules look a node up here:
        a BGP peer of the same name takes its address and AS number from it.
      '';
    };
    sites = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            asn = asnOption "The autonomous system of the nodes there that have none of their own.";
            description = mkOption {
              type = types.str;
              default = "";
              example = "hall 3, row B";
              description = "What and where it is, for those who read it.";
            };
          };
        }
      );
      default = { };
      example.berlin.asn = 64512;
      description = "The places that nodes are at, by name.";
    };
    links = mkOption {
      type = types.listOf (types.submodule link);
      default = [ ];
      example = lib.literalExpression ''
        [
          {
            a = { node = "spine1"; interface = "eth1"; };
            b = { node = "leaf1"; interface = "eth1"; };
            prefixes = [ "192.0.2.0/31" "2001:db8::/127" ];
          }
        ]
      '';
      description = "The cables of the network, each between two nodes.";
    };
  };

  config.assertions =
    lib.concatLists (lib.mapAttrsToList nodeProblems cfg.nodes)
    ++ lib.concatLists (
      lib.mapAttrsToList (
        name: site:
        lib.optional (site.asn != null) {
          assertion = asn.isUsable site.asn;
          message = "nix-nos.topology.sites.${name}.asn: ${toString site.asn} cannot be used; ${asn.rule}.";
        }
      ) cfg.sites
    )
    ++ lib.optional (cfg.self != null) {
      assertion = cfg.nodes ? ${cfg.self};
      message = "nix-nos.topology.self: there is no node \"${cfg.self}\"; name one of ${option}, or null.";
    }
    ++ lib.concatLists (lib.imap1 linkProblems cfg.links)
    ++ lib.mapAttrsToList (plug: found: {
      assertion = false;
      message = "nix-nos.topology.links: ${plug} is in entries ${lib.concatStringsSep " and " found}; an interface has one link.";
    }) (repeated plugs)
    ++ lib.mapAttrsToList (address: found: {
      assertion = false;
      message = "nix-nos.topology.nodes: ${address} is an address of ${lib.concatStringsSep " and " found}; give each node its own.";
    }) (repeated addressUses)
    ++ lib.mapAttrsToList (address: found: {
      assertion = lib.length (lib.unique found) == 1;
      message = "nix-nos.topology.links: ${address} is in ${lib.concatStringsSep " and " (lib.unique found)}; give each link its own.";
    }) (repeated linkAddressUses);
}
