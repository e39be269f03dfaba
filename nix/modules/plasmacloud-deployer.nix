# The registry of a cluster's nodes, on the machine that runs it.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (config.plasmacloud) package;
  duration = import ../lib/duration.nix { inherit lib; };
  cfg = config.plasmacloud.deployer;
  inherit (cfg) store tls tokens;
  etcd = store.type == "etcd";
  option = "plasmacloud.deployer";

  binary = "${package}/bin/plasmacloud-deployer";
  configFile = "plasmacloud/deployer.json";
  manifestFile = "plasmacloud/manifest.json";

  # Files that systemd reads as root and hands to the service: { <name> = path; }.
  credentials =
    lib.filterAttrs (_: path: path != null) (
      {
        join-tokens = tokens.joinFile;
        operators = tokens.operatorsFile;
      }
      // lib.optionalAttrs tls.enable {
        tls-cert = tls.certFile;
        tls-key = tls.keyFile;
        tls-client-ca = tls.clientCaFile;
      }
      // lib.optionalAttrs etcd {
        etcd-ca = store.etcd.tls.caFile;
        etcd-cert = store.etcd.tls.certFile;
        etcd-key = store.etcd.tls.keyFile;
        etcd-password = store.etcd.passwordFile;
      }
    );
  # Where the service finds one, "" for one that is not set (systemd.exec(5), CREDENTIALS).
  credential =
    name: lib.optionalString (credentials ? ${name}) "/run/credentials/plasmacloud-deployer.service/${name}";
  # Those that are set, under the keys of deployer.json.
  present = lib.filterAttrs (_: path: path != "");
  etcdTls = present {
    ca = credential "etcd-ca";
    cert = credential "etcd-cert";
    key = credential "etcd-key";
  };

  configJson =
    builtins.toJSON (
      {
        inherit (cfg) listen;
        store =
          if etcd then
            {
              inherit (store) type;
              inherit (store.etcd) endpoints prefix timeout;
              compact_interval = store.etcd.compactInterval;
            }
            // lib.optionalAttrs (etcdTls != { }) { tls = etcdTls; }
            // lib.optionalAttrs (store.etcd.username != null) {
              inherit (store.etcd) username;
              password_file = credential "etcd-password";
            }
          else
            { inherit (store) type path; };
        tokens = present {
          join_file = credential "join-tokens";
          operators_file = credential "operators";
        }
        // lib.optionalAttrs tokens.required { required = true; };
        inherit (cfg) approval;
        inherit (cfg) page;
        manifest = if cfg.manifest == null then "" else "${cfg.manifest}";
        allow_unknown_nodes = cfg.allowUnknownNodes;
        max_unknown_nodes = cfg.maxUnknownNodes;
        provisioning_timeout = cfg.provisioningTimeout;
        heartbeat_interval = cfg.heartbeatInterval;
        heartbeat_rate = cfg.heartbeatRate;
      }
      // lib.optionalAttrs (cfg.offlineAfter != null) { offline_after = cfg.offlineAfter; }
      // lib.optionalAttrs tls.enable {
        tls = present {
          cert = credential "tls-cert";
          key = credential "tls-key";
          client_ca = credential "tls-client-ca";
          client_auth = lib.optionalString (tls.clientCaFile != null) tls.clientAuth;
        };
      }
    )
    + "\n";
  # Of etcd's members those that are spoken to in plain text.
  plain = lib.filter (lib.hasPrefix "http:") store.etcd.endpoints;
  readable = lib.filter (
    url: builtins.match "http://(127\\.[0-9.]*|localhost|\\[::1]):.*" url == null
  ) plain;
  ownManifest = cfg.manifest == "/etc/${manifestFile}";
  manifestJson = builtins.toJSON cfg.clusterManifest + "\n";

  within = name: text: least: most: {
    assertion =
      duration.parse text >= duration.parse least && duration.parse text <= duration.parse most;
    message = "${option}.${name}: ${text} is not from ${least} to ${most}.";
  };
  secret = import ../lib/secret-file.nix { inherit lib; };
  url = config.plasmacloud.cluster.deployer.url;
in
{
  imports = [
    ./options/deployer.nix
    ./options/network.nix
    ./options/package.nix
  ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.manifest != null || cfg.allowUnknownNodes;
        message = "${option}.manifest: null, so no node could join; define plasmacloud.cluster, name a manifest, or set ${option}.allowUnknownNodes.";
      }
      {
        assertion = tls.enable -> tls.certFile != null && tls.keyFile != null;
        message = "${option}.tls: with enable, name both certFile and keyFile.";
      }
      {
        assertion = tls.clientAuth == "required" || tls.clientCaFile != null;
        message = "${option}.tls.clientAuth: of no use without a CA; name clientCaFile, or leave it out.";
      }
      {
        assertion = cfg.approval == "none" || tokens.operatorsFile != null;
        message = "${option}.approval: nobody may approve without operators; name ${option}.tokens.operatorsFile.";
      }
      {
        assertion = cfg.approval != "undeclared" || cfg.allowUnknownNodes;
        message = "${option}.approval: undeclared nodes join only with ${option}.allowUnknownNodes; set that too, or take none or all.";
      }
      {
        assertion = etcd -> store.etcd.endpoints != [ ];
        message = "${option}.store.etcd.endpoints: none; name the members of etcd, such as https://10.0.0.21:2379.";
      }
      {
        assertion = etcd || store.etcd.endpoints == [ ];
        message = "${option}.store.etcd.endpoints: of no use with the type bolt; set ${option}.store.type = \"etcd\", or leave it out.";
      }
      {
        assertion = (store.etcd.tls.certFile == null) == (store.etcd.tls.keyFile == null);
        message = "${option}.store.etcd.tls: certFile and keyFile go together.";
      }
      {
        assertion = (store.etcd.username == null) == (store.etcd.passwordFile == null);
        message = "${option}.store.etcd: username and passwordFile go together.";
      }
      {
        assertion = store.etcd.tls.caFile == null && store.etcd.tls.keyFile == null || plain == [ ];
        message = "${option}.store.etcd.endpoints: ${lib.head (plain ++ [ "" ])} beside store.etcd.tls; write it as https://, or leave the files out.";
      }
      {
        assertion = store.etcd.username == null || readable == [ ];
        message = "${option}.store.etcd.username: its password would go to ${lib.head (readable ++ [ "" ])} for anybody on the way to read; make every one of store.etcd.endpoints https://.";
      }
      (within "provisioningTimeout" cfg.provisioningTimeout "1s" "720h")
      (within "heartbeatInterval" cfg.heartbeatInterval "1s" "1h")
    ]
    ++ lib.optionals (cfg.offlineAfter != null) [
      (within "offlineAfter" cfg.offlineAfter "1s" "24h")
      {
        assertion = duration.parse cfg.offlineAfter > duration.parse cfg.heartbeatInterval;
        message = "${option}.offlineAfter: ${cfg.offlineAfter} is not more than heartbeatInterval (${cfg.heartbeatInterval}), so every node would be offline between two heartbeats.";
      }
    ]
    ++ lib.mapAttrsToList (name: secret "${option}.${name}") {
      "tls.keyFile" = tls.keyFile;
      "tokens.joinFile" = tokens.joinFile;
      "tokens.operatorsFile" = tokens.operatorsFile;
      "store.etcd.tls.keyFile" = store.etcd.tls.keyFile;
      "store.etcd.passwordFile" = store.etcd.passwordFile;
    };

    warnings = lib.optional (tls.enable && lib.hasPrefix "http:" url) "The deployer here serves https:// only, and plasmacloud.cluster.deployer.url is ${url}: nodes do not reach it there.";

    environment.systemPackages = [ package ];
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
      wants = lib.optional etcd "network-online.target";
      after = [ (if etcd then "network-online.target" else "network.target") ];
      restartTriggers = [ configJson ];
      reloadTriggers = lib.optional ownManifest manifestJson;
      startLimitIntervalSec = 0;
      serviceConfig =
        import ./hardening.nix
        // {
          Type = "notify";
          ExecStartPre = "${binary} check /etc/${configFile}";
          ExecStart = "${binary} serve --config /etc/${configFile}";
          ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
          Restart = "always";
          RestartSec = "1s";
          WatchdogSec = "30s";

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
        }
        // lib.optionalAttrs (credentials != { }) {
          LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") credentials;
        };
    };
  };
}
