# The agent that keeps the deployer informed about this node.
{ lib, config, ... }:
let
  inherit (config.plasmacloud) node package;
  cfg = config.plasmacloud.phoneHome;
  file = "/etc/nixos/secrets/cluster-config.json";
in
{
  imports = [
    ./options/node.nix
    ./options/package.nix
  ];

  options.plasmacloud.phoneHome.enable =
    lib.mkEnableOption "reporting this node to the cluster's deployer"
    // {
      default = node.data != null;
      defaultText = lib.literalExpression "config.plasmacloud.node.id != null";
    };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = node.id != null;
        message = "plasmacloud.phoneHome.enable: this machine is no node of the cluster; set plasmacloud.node.id, or turn it off.";
      }
    ];

    systemd.services.plasmacloud-phone-home = {
      description = "Reports of this node to the deployer";
      documentation = [ "https://github.com/centra/plasmacloud" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      restartTriggers = lib.optional (node.data != null) node.data.clusterConfig;
      startLimitIntervalSec = 0;
      serviceConfig = import ./hardening.nix // {
        # Not notify: the deployer may be down for as long as it likes, and a
        # switch to a new configuration must not wait for it.
        Type = "exec";
        ExecStart = lib.escapeShellArgs [
          "${package}/bin/plasmacloud-phone-home"
          "--config"
          file
          "--phase"
          "ready"
          "--heartbeat"
        ];
        Restart = "always";
        RestartSec = "10s";
        # A wrong file stays wrong until a switch brings another, and starts it again.
        RestartPreventExitStatus = 78;

        # The mainboard's UUID, by which a machine is known, is for root only.
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_NETLINK"
          "AF_UNIX"
        ];
      };
    };
  };
}
