# The agent that keeps the deployer informed about this node.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  inherit (config.plasmacloud) cluster node package;
  cfg = config.plasmacloud.phoneHome;
  announces = node.data != null && node.data.announcer != null;
  status = import ../lib/announcer-status.nix;
  option = "plasmacloud.phoneHome";
  configFile = "/etc/nixos/secrets/cluster-config.json";

  file =
    example: description:
    mkOption {
      type = types.nullOr types.path;
      default = null;
      inherit example description;
    };

  # Files that systemd hands to the service, by the flag that takes them.
  credentials = lib.filterAttrs (_: path: path != null) {
    join-token-file = cfg.tokenFile;
    ca-file = cfg.caFile;
    cert-file = cfg.certFile;
    key-file = cfg.keyFile;
  };
  secret = import ../lib/secret-file.nix { inherit lib; };
  # systemd reads both of these itself (systemd.service(5), COMMAND LINES).
  plain = builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ];
in
{
  imports = [
    ./options/node.nix
    ./options/package.nix
  ];

  options.plasmacloud.phoneHome = {
    enable = lib.mkEnableOption "reporting this node to the cluster's deployer" // {
      default = node.data != null;
      defaultText = lib.literalExpression "config.plasmacloud.node.id != null";
    };
    tokenFile = file "/run/secrets/join-token" "The token by which the node joins, where the deployer wants one. A file outside of the Nix store.";
    caFile = file "/var/lib/secrets/deployer-ca.pem" "The CA of the deployer's certificate, in PEM. Null: those that the system believes.";
    certFile = file "/var/lib/secrets/node.pem" "The node's own certificate, in PEM, for a deployer with {option}`plasmacloud.deployer.tls.clientCaFile`.";
    keyFile = file "/var/lib/secrets/node.key" "The key of that certificate. A file outside of the Nix store.";
    services = mkOption {
      type = types.listOf (types.strMatching "[0-9A-Za-z:_.@\\-]+\\.[a-z]+");
      default = lib.optionals announces [
        "gobgpd.service"
        "plasmacloud-announcer.service"
      ];
      defaultText = lib.literalMD "the speaker and the announcer, on a node that announces VIPs";
      example = [ "etcd.service" ];
      description = "Units of this machine whose state the deployer shows with the node, at most 64. They are asked for over D-Bus, and nothing is done to them.";
    };
    extraArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "--vip"
        "203.0.113.10"
      ];
      description = "More arguments of plasmacloud-phone-home.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = node.id != null;
        message = "${option}.enable: this machine is no node of the cluster; set plasmacloud.node.id, or turn it off.";
      }
      {
        assertion = (cfg.certFile == null) == (cfg.keyFile == null);
        message = "${option}: certFile and keyFile go together.";
      }
      {
        assertion = cfg.caFile == null || lib.hasPrefix "https://" cluster.deployer.url;
        message = "${option}.caFile: goes with https, and plasmacloud.cluster.deployer.url is \"${cluster.deployer.url}\"; write that as https://, or leave caFile at null.";
      }
      {
        assertion = lib.length cfg.services <= 64;
        message = "${option}.services: ${toString (lib.length cfg.services)} units, and a report has room for 64; leave out what matters least.";
      }
      (secret "${option}.tokenFile" cfg.tokenFile)
      (secret "${option}.keyFile" cfg.keyFile)
    ];

    systemd.services.plasmacloud-phone-home = {
      description = "Reports of this node to the deployer";
      documentation = [ "https://github.com/centra/plasmacloud" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      restartTriggers = lib.optional (node.data != null) node.data.clusterConfig;
      startLimitIntervalSec = 0;
      serviceConfig =
        import ./hardening.nix
        // {
          # Not notify: the deployer may be down for as long as it likes, and a
          # switch to a new configuration must not wait for it.
          Type = "exec";
          ExecStart = lib.concatStringsSep " " (
            [
              "${package}/bin/plasmacloud-phone-home"
              "--config"
              configFile
              "--phase"
              "ready"
              "--heartbeat"
            ]
            ++ lib.concatMap (flag: [
              "--${flag}"
              "%d/${flag}"
            ]) (lib.attrNames credentials)
            ++ lib.concatMap (unit: [
              "--service"
              (plain (lib.escapeShellArg unit))
            ]) cfg.services
            ++ lib.optionals announces [
              "--announcer-socket"
              status.socket
            ]
            ++ map (arg: plain (lib.escapeShellArg arg)) cfg.extraArgs
          );
          # Also after a wrong file: a token may be mended without a switch.
          Restart = "always";
          RestartSec = "10s";
          StateDirectory = "plasmacloud-phone-home"; # the node's secret
          StateDirectoryMode = "0700";
          UMask = "0077";

          # The mainboard's UUID, by which a machine is known, is for root only.
          CapabilityBoundingSet = "";
          RestrictAddressFamilies = [
            "AF_INET"
            "AF_INET6"
            "AF_NETLINK"
            "AF_UNIX"
          ];
        }
        // lib.optionalAttrs announces {
          # The announcer's socket is for this group; root without capabilities is
          # held to that too.
          SupplementaryGroups = [ status.group ];
        }
        // lib.optionalAttrs (credentials != { }) {
          LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") credentials;
        };
    };
  };
}
