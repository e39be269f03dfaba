/*
  systemd.network, as far as it renders .network, .netdev and .link files. What
  nixpkgs checks of each section's keys and values is not checked here.
*/
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.systemd.network;
  unit = import ./unit-value.nix { inherit lib; };

  section =
    description:
    mkOption {
      type = types.attrsOf unit.value;
      default = { };
      inherit description;
    };
  sections =
    description:
    mkOption {
      type = types.listOf (types.attrsOf unit.value);
      default = [ ];
      inherit description;
    };
  strings =
    description:
    mkOption {
      type = types.listOf types.str;
      default = [ ];
      inherit description;
    };
  files =
    description: options:
    mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            enable = mkOption {
              type = types.bool;
              default = true;
              description = "Whether the file counts.";
            };
            matchConfig = section "Its section [Match].";
            extraConfig = mkOption {
              type = types.lines;
              default = "";
              description = "Text at its end.";
            };
          }
          // options;
        }
      );
      default = { };
      inherit description;
    };

  # NixOS has an empty line behind each section, and the lists of [Network] in
  # an order of its own.
  text = name: keys: "[${name}]\n${unit.lines keys}\n";
  unlessEmpty = name: keys: lib.optionalString (keys != { }) (text name keys);
  lists = [
    "address"
    "gateway"
    "dns"
    "ntp"
    "bridge"
    "bond"
    "vrf"
    "macvlan"
    "tunnel"
    "vlan"
    "vxlan"
  ];
  keyOf =
    list:
    if
      lib.elem list [
        "address"
        "gateway"
        "bridge"
        "bond"
        "tunnel"
      ]
    then
      lib.toSentenceCase list
    else
      lib.toUpper list;

  networkText =
    n:
    unlessEmpty "Match" n.matchConfig
    + unlessEmpty "Link" n.linkConfig
    + "[Network]\n"
    + unit.lines n.networkConfig
    + lib.concatMapStrings (list: lib.concatMapStrings (v: "${keyOf list}=${v}\n") n.${list}) lists
    + "\n"
    + lib.concatMapStrings (text "Address") n.addresses
    + lib.concatMapStrings (text "RoutingPolicyRule") n.routingPolicyRules
    + lib.concatMapStrings (text "Route") n.routes
    + unlessEmpty "DHCPv4" n.dhcpV4Config
    + unlessEmpty "DHCPv6" n.dhcpV6Config
    + unlessEmpty "IPv6AcceptRA" n.ipv6AcceptRAConfig
    + unlessEmpty "Bridge" n.bridgeConfig
    + n.extraConfig;
  netdevText =
    n:
    unlessEmpty "Match" n.matchConfig
    + text "NetDev" n.netdevConfig
    + unlessEmpty "Bridge" n.bridgeConfig
    + unlessEmpty "VLAN" n.vlanConfig
    + unlessEmpty "VXLAN" n.vxlanConfig
    + unlessEmpty "Bond" n.bondConfig
    + unlessEmpty "VRF" n.vrfConfig
    + n.extraConfig;
  linkText = l: unlessEmpty "Match" l.matchConfig + text "Link" l.linkConfig + l.extraConfig;

  etc =
    suffix: render: set:
    lib.mapAttrs' (
      name: unit: lib.nameValuePair "systemd/network/${name}.${suffix}" { text = render unit; }
    ) (lib.filterAttrs (_: unit: unit.enable) set);
in
{
  options = {
    networking.useNetworkd = mkOption {
      type = types.bool;
      default = false;
      description = "Whether systemd-networkd runs the network.";
    };
    systemd.network = {
      enable = mkOption {
        type = types.bool;
        default = false;
        description = "Whether systemd-networkd runs.";
      };
      links = files "Files NAME.link." { linkConfig = section "Its section [Link]."; };
      netdevs = files "Files NAME.netdev." {
        netdevConfig = section "Its section [NetDev].";
        bridgeConfig = section "Its section [Bridge].";
        vlanConfig = section "Its section [VLAN].";
        vxlanConfig = section "Its section [VXLAN].";
        bondConfig = section "Its section [Bond].";
        vrfConfig = section "Its section [VRF].";
      };
      networks = files "Files NAME.network." (
        {
          linkConfig = section "Its section [Link].";
          networkConfig = section "Its section [Network].";
          addresses = sections "Its sections [Address].";
          routingPolicyRules = sections "Its sections [RoutingPolicyRule].";
          routes = sections "Its sections [Route].";
          dhcpV4Config = section "Its section [DHCPv4].";
          dhcpV6Config = section "Its section [DHCPv6].";
          ipv6AcceptRAConfig = section "Its section [IPv6AcceptRA].";
          bridgeConfig = section "Its section [Bridge].";
        }
        // lib.genAttrs lists (list: strings "${keyOf list}= of its section [Network].")
      );
      config.networkConfig = section "Section [Network] of networkd.conf.";
      wait-online = mkOption {
        type = types.anything;
        default = { };
        description = "Taken as it is.";
      };
    };
  };

  config = {
    environment.etc = lib.mkMerge [
      (etc "link" linkText cfg.links)
      (lib.mkIf cfg.enable (
        etc "netdev" netdevText cfg.netdevs
        // etc "network" networkText cfg.networks
        // {
          "systemd/networkd.conf".text = text "Network" cfg.config.networkConfig;
        }
      ))
    ];
    systemd.network = {
      enable = lib.mkIf config.networking.useNetworkd true;
      config.networkConfig.IPv6PrivacyExtensions = lib.mkOptionDefault true;
    };
  };
}
