# nix-nos.vlans: tagged networks (IEEE 802.1Q) on top of an interface, by
# systemd-networkd.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  addressing = import ./interfaces-addressing.nix { inherit lib; };
  cfg = config.nix-nos.vlans;
  inherit (config.nix-nos) interfaces;
  option = name: "nix-nos.vlans.${name}";

  vlan =
    { config, ... }:
    {
      options = addressing.options config // {
        id = mkOption {
          type = types.int;
          example = 100;
          description = "The tag, 1 to 4094.";
        };
        interface = mkOption {
          type = types.str;
          example = "eth0";
          description = "The interface that carries it, one of {option}`nix-nos.interfaces`.";
        };
      };
    };

  problems =
    name: v:
    let
      parent = interfaces.${v.interface} or null;
    in
    addressing.problems (option name) name v
    ++ [
      {
        assertion = v.id >= 1 && v.id <= 4094;
        message = "${option name}.id: ${toString v.id} is no VLAN; take 1 to 4094.";
      }
      {
        assertion = parent != null && v.interface != "lo";
        message =
          if v.interface == "lo" then
            "${option name}.interface: the loopback carries no VLANs; name another interface."
          else
            "${option name}.interface: there is no interface \"${v.interface}\"; name one of nix-nos.interfaces, or add nix-nos.interfaces.${v.interface} = { }.";
      }
      {
        assertion = parent == null || v.mtu == null || parent.mtu == null || v.mtu <= parent.mtu;
        message = "${option name}.mtu: ${toString v.mtu} is more than that of ${v.interface}, ${
          toString (parent.mtu or null)
        }; take at most that.";
      }
    ];

  same = lib.filterAttrs (_: found: lib.length found > 1) (
    lib.groupBy (name: "${toString cfg.${name}.id} of ${cfg.${name}.interface}") (lib.attrNames cfg)
  );
in
{
  imports = [ ./interfaces.nix ];

  options.nix-nos.vlans = mkOption {
    type = types.attrsOf (types.submodule vlan);
    default = { };
    example = lib.literalExpression ''
      {
        storage = {
          id = 100;
          interface = "eth0";
          addresses = [ "198.51.100.10/24" ];
        };
      }
    '';
    description = "The tagged networks (IEEE 802.1Q) that the machine is in, by the name of their interface.";
  };

  config = lib.mkMerge [
    {
      assertions =
        lib.concatLists (lib.mapAttrsToList problems cfg)
        ++ lib.mapAttrsToList (what: found: {
          assertion = false;
          message = "nix-nos.vlans: ${lib.concatStringsSep " and " found} are both VLAN ${what}; give each its own id.";
        }) same;
    }
    (lib.mkIf (cfg != { }) (
      lib.mkMerge [
        addressing.networkd
        {
          systemd.network = {
            netdevs = lib.mapAttrs' (
              name: v:
              lib.nameValuePair "10-${name}" {
                netdevConfig = {
                  Name = name;
                  Kind = "vlan";
                };
                vlanConfig.Id = v.id;
              }
            ) cfg;
            networks = lib.mapAttrs' (
              name: v: lib.nameValuePair "10-${name}" (addressing.network name v)
            ) cfg;
          };
        }
        {
          systemd.network.networks = lib.mapAttrs' (
            parent: names: lib.nameValuePair "10-${parent}" { vlan = names; }
          ) (lib.groupBy (name: cfg.${name}.interface) (lib.attrNames cfg));
        }
      ]
    ))
  ];
}
