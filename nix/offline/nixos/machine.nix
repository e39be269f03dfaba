{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  names =
    description:
    mkOption {
      type = types.listOf types.str;
      default = [ ];
      inherit description;
    };
  ports =
    description:
    mkOption {
      type = types.listOf types.port;
      default = [ ];
      apply = list: lib.unique (builtins.sort builtins.lessThan list);
      inherit description;
    };
  accounts =
    description:
    mkOption {
      type = types.attrsOf (types.attrsOf types.anything);
      default = { };
      inherit description;
    };
in
{
  options = {
    boot = {
      kernelModules = names "Kernel modules loaded at boot.";
      kernelParams = names "The kernel's command line.";
      kernel.sysctl = mkOption {
        type = types.attrsOf (
          types.nullOr (
            types.oneOf [
              types.bool
              types.int
              types.str
            ]
          )
        );
        default = { };
        description = "Kernel settings, sysctl(8).";
      };
    };
    networking = {
      hostName = mkOption {
        type = types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$";
        default = "nixos";
        description = "The host's name, a single label.";
      };
      hosts = mkOption {
        type = types.attrsOf (types.listOf types.str);
        default = { };
        description = "Addresses in /etc/hosts, each with its names.";
      };
      enableIPv6 = mkOption {
        type = types.bool;
        default = true;
        description = "Whether there is IPv6.";
      };
      nftables.enable = lib.mkEnableOption "nftables, also for the firewall";
      firewall = {
        enable = mkOption {
          type = types.bool;
          default = true;
          description = "Whether incoming connections are filtered.";
        };
        allowedTCPPorts = ports "TCP ports that are open.";
        allowedUDPPorts = ports "UDP ports that are open.";
        extraCommands = mkOption {
          type = types.lines;
          default = "";
          description = "More commands of a firewall by iptables.";
        };
        extraInputRules = mkOption {
          type = types.lines;
          default = "";
          description = "More rules of a firewall by nftables.";
        };
      };
    };
    users = {
      users = accounts "User accounts.";
      groups = accounts "Groups.";
    };
    virtualisation.vswitch = {
      enable = lib.mkEnableOption "Open vSwitch";
      resetOnStart = mkOption {
        type = types.bool;
        default = false;
        description = "Whether Open vSwitch forgets its configuration at start.";
      };
      package = mkOption {
        type = types.package;
        default = pkgs.openvswitch;
        description = "Where Open vSwitch comes from.";
      };
    };
  };
}
