# The registry of a cluster's nodes, on the machine that runs it.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (config.plasmacloud) cluster package;
  inherit (import ../lib/endpoint.nix { inherit lib; }) port;
  cfg = config.plasmacloud.deployer;
  binary = "${package}/bin/plasmacloud-deployer";
  configFile = "plasmacloud/deployer.json";
  manifestFile = "plasmacloud/manifest.json";

  configJson =
    builtins.toJSON {
      inherit (cfg) listen;
      store.path = cfg.storePath;
      manifest = if cfg.manifest == null then "" else "${cfg.manifest}";
      allow_unknown_nodes = cfg.allowUnknownNodes;
    }
    + "\n";
  ownManifest = cfg.manifest == "/etc/${manifestFile}";
  manifestJson = builtins.toJSON cfg.clusterManifest + "\n";
in
{
  imports = [
    ./options/network.nix
    ./options/package.nix
  ];

  options.plasmacloud.deployer = {
    enable = lib.mkEnableOption "the deployer, the registry of the cluster's nodes";
    listen = mkOption {
      type = types.strMatching "([0-9A-Za-z._-]+|\\[[0-9a-fA-F:.]+(%[0-9A-Za-z._-]+)?])?:${port}";
      default = ":8080";
      example = "10.0.0.10:8080";
      description = "Where it listens, as HOST:PORT; without a host, on every address.";
    };
    storePath = mkOption {
      type = types.strMatching "/var/lib/plasmacloud-deployer/[0-9A-Za-z_][0-9A-Za-z._-]*";
      default = "/var/lib/plasmacloud-deployer/state.db";
      example = "/var/lib/plasmacloud-deployer/nodes.db";
      description = "The file of the registry, directly below the service's state directory.";
    };
    manifest = mkOption {
      type = types.nullOr types.path;
      default = if cluster.nodes == { } then null else "/etc/${manifestFile}";
      defaultText = lib.literalMD "the manifest of {option}`plasmacloud.cluster`, where that is defined";
      example = "/var/lib/plasmacloud-deployer/manifest.json";
      description = "The manifest of the cluster whose nodes may join.";
    };
    clusterManifest = mkOption {
      type = types.raw;
      internal = true;
      default = {
        data = (import ../lib/cluster-data.nix { inherit lib; } config.plasmacloud).manifest;
        failedAssertions = [ ];
        # NixOS' own are not about the cluster.
        warnings = lib.filter (lib.hasPrefix "plasmacloud.") config.warnings;
      };
      description = ''
        The manifest of {option}`plasmacloud.cluster`: mkCluster gives the one
        that it made. On a machine outside the cluster it is made anew.
      '';
    };
    allowUnknownNodes = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether a node that no manifest names may join.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to open the port of {option}`listen` in the firewall.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.manifest != null || cfg.allowUnknownNodes;
        message = "plasmacloud.deployer.manifest: null, so no node could join; define plasmacloud.cluster, name a manifest, or set plasmacloud.deployer.allowUnknownNodes.";
      }
    ];

    environment.etc = {
      ${configFile}.text = configJson;
      ${manifestFile} = lib.mkIf ownManifest { text = manifestJson; };
    };

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [
      (lib.toInt (lib.last (lib.splitString ":" cfg.listen)))
    ];

    systemd.services.plasmacloud-deployer = {
      description = "Registry of the cluster's nodes";
      documentation = [ "https://github.com/centra/plasmacloud" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      restartTriggers = [ configJson ];
      reloadTriggers = lib.optional ownManifest manifestJson;
      startLimitIntervalSec = 0;
      serviceConfig = import ./hardening.nix // {
        Type = "notify";
        ExecStartPre = "${binary} check /etc/${configFile}";
        ExecStart = "${binary} serve --config /etc/${configFile}";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "always";
        RestartSec = "1s";

        DynamicUser = true;
        StateDirectory = "plasmacloud-deployer";
        CapabilityBoundingSet = [ "CAP_NET_BIND_SERVICE" ];
        AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        UMask = "0077";
      };
    };
  };
}
