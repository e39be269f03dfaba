# nix-nos.interfaces: the machine's interfaces, by systemd-networkd.
{
  lib,
  config,
  ...
}:
let
  inherit (lib) mkOption types;
  addressing = import ./interfaces-addressing.nix { inherit lib; };
  cfg = config.nix-nos.interfaces;
  # Where vlans.nix is there too.
  vlans = config.nix-nos.vlans or { };
  option = name: "nix-nos.interfaces.${name}";

  members = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [
      "eth1"
      "eth2"
    ];
    description = "The interfaces that belong to it. They need no entry of their own.";
  };

  interface =
    { config, ... }:
    {
      options = addressing.options config // {
        mac = mkOption {
          type = types.nullOr (types.strMatching "[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}");
          default = null;
          example = "52:54:00:12:34:56";
          description = ''
            Hardware address of the network card that gets this name; null: the
            interface has it anyway.
          '';
        };
        bridge = mkOption {
          type = types.nullOr (types.submodule { options = { inherit members; }; });
          default = null;
          example.members = [ "eth1" ];
          description = "Make this a bridge; null: it is none.";
        };
        bond = mkOption {
          type = types.nullOr (
            types.submodule {
              options = {
                inherit members;
                mode = mkOption {
                  type = types.enum [
                    "balance-rr"
                    "active-backup"
                    "balance-xor"
                    "broadcast"
                    "802.3ad"
                    "balance-tlb"
                    "balance-alb"
                  ];
                  default = "802.3ad";
                  example = "active-backup";
                  description = "How it spreads the load; 802.3ad is LACP.";
                };
              };
            }
          );
          default = null;
          example.members = [
            "eth1"
            "eth2"
          ];
          description = "Make this a bond of several interfaces; null: it is none.";
        };
      };
    };

  # Of each bridge and bond, and who is in it.
  masters = lib.filterAttrs (_: i: i.bridge != null || i.bond != null) cfg;
  membersOf =
    i:
    lib.optionals (i.bridge != null) i.bridge.members ++ lib.optionals (i.bond != null) i.bond.members;
  # { <member> = [ master ]; }
  enslaved = lib.mapAttrs (_: map (pair: pair.master)) (
    lib.groupBy (pair: pair.member) (
      lib.concatLists (
        lib.mapAttrsToList (master: i: map (member: { inherit master member; }) (membersOf i)) masters
      )
    )
  );
  devices = cfg // vlans;

  problems =
    name: i:
    addressing.problems (option name) name i
    ++ [
      {
        assertion = i.bridge == null || i.bond == null;
        message = "${option name}: is a bridge and a bond; keep one of the two.";
      }
      {
        assertion = i.mac == null || (i.bridge == null && i.bond == null && name != "lo");
        message = "${option name}.mac: names a network card, and this is none; leave mac at null.";
      }
      {
        assertion = !(vlans ? ${name});
        message = "${option name}: is also the name of a VLAN, nix-nos.vlans.${name}; give one of them another name.";
      }
    ]
    ++ lib.optionals (enslaved ? ${name}) (unaddressed (option name) name i);

  # What is in a bridge or bond has its addresses there.
  unaddressed = optionName: name: d: [
    {
      assertion = d.addresses == [ ] && d.dhcp == "none";
      message = "${optionName}: belongs to ${lib.head enslaved.${name}}; set addresses and dhcp of that one instead.";
    }
  ];

  memberProblems = member: found: [
    {
      assertion = addressing.isName member;
      message = "${option (lib.head found)}: the member \"${member}\" cannot be the name of an interface; ${addressing.nameRule}.";
    }
    {
      assertion = lib.length found == 1;
      message = "nix-nos.interfaces: ${member} is a member of ${lib.concatStringsSep " and of " found}; an interface belongs to one.";
    }
    {
      assertion = !(lib.elem member found) && member != "lo";
      message = "${option (lib.head found)}: ${member} cannot be a member of it; name another interface.";
    }
  ];

  sameMac = lib.filterAttrs (_: found: lib.length found > 1) (
    lib.groupBy (name: lib.toLower cfg.${name}.mac) (
      lib.attrNames (lib.filterAttrs (_: i: i.mac != null) cfg)
    )
  );

  # Members without an entry, to be in their bridge or bond and no more.
  silent = lib.genAttrs (lib.filter (name: !(devices ? ${name})) (lib.attrNames enslaved)) (name: {
    matchConfig.Name = name;
  });
  membership =
    name:
    let
      master = lib.head enslaved.${name};
    in
    {
      networkConfig.LinkLocalAddressing = lib.mkForce false;
      linkConfig.RequiredForOnline = lib.mkDefault "enslaved";
    }
    // (if cfg.${master}.bond != null then { bond = [ master ]; } else { bridge = [ master ]; });

  units = lib.mapAttrs' (name: lib.nameValuePair "10-${name}");
in
{
  options.nix-nos.interfaces = mkOption {
    type = types.attrsOf (types.submodule interface);
    default = { };
    example = lib.literalExpression ''
      {
        eth0 = {
          mac = "52:54:00:12:34:56";
          addresses = [ "192.0.2.10/24" "2001:db8::10/64" ];
        };
        br0.bridge.members = [ "eth1" "eth2" ];
      }
    '';
    description = ''
      The interfaces of the machine, by name. As soon as there is one,
      systemd-networkd runs the machine's network, and what is not in here gets
      no addresses by DHCP any more.
    '';
  };

  config = lib.mkMerge [
    {
      assertions =
        lib.concatLists (lib.mapAttrsToList problems cfg)
        ++ lib.concatLists (lib.mapAttrsToList memberProblems enslaved)
        ++ lib.mapAttrsToList (mac: found: {
          assertion = false;
          message = "nix-nos.interfaces: ${mac} is the mac of ${lib.concatStringsSep " and " found}; a network card gets one name.";
        }) sameMac
        ++ lib.mapAttrsToList (address: found: {
          assertion = lib.length (lib.unique found) == 1;
          message = "nix-nos.interfaces: ${address} is an address of ${
            lib.concatStringsSep " and " (lib.unique found)
          }; a machine has it once.";
        }) (addressing.holders devices);
    }
    (lib.mkIf (cfg != { }) (
      lib.mkMerge [
        addressing.networkd
        {
          systemd.network = {
            links = units (
              lib.mapAttrs (name: i: {
                matchConfig.PermanentMACAddress = lib.toLower i.mac;
                linkConfig.Name = name;
              }) (lib.filterAttrs (_: i: i.mac != null) cfg)
            );
            netdevs = units (
              lib.mapAttrs (
                name: i:
                {
                  netdevConfig = {
                    Name = name;
                    Kind = if i.bond != null then "bond" else "bridge";
                  };
                }
                // lib.optionalAttrs (i.bond != null) {
                  bondConfig = {
                    Mode = i.bond.mode;
                    # Else a bond never learns that a link is down.
                    MIIMonitorSec = "100ms";
                  };
                }
              ) masters
            );
            networks = units (lib.mapAttrs addressing.network cfg);
          };
        }
        { systemd.network.networks = units silent; }
        { systemd.network.networks = units (lib.mapAttrs (name: _: membership name) enslaved); }
      ]
    ))
  ];
}
