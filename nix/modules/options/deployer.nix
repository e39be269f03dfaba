# plasmacloud.deployer: the options.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ../../lib/endpoint.nix { inherit lib; }) port;
  duration = (import ../../lib/duration.nix { inherit lib; }).type;

  file =
    example: description:
    mkOption {
      type = types.nullOr types.path;
      default = null;
      inherit example description;
    };
  outside = "A file outside of the Nix store; systemd hands it to the service, so root alone may read it.";
  time =
    default: example: description:
    mkOption {
      type = duration;
      inherit default example description;
    };
in
{
  options.plasmacloud.deployer = {
    enable = lib.mkEnableOption "the deployer, the registry of the cluster's nodes";
    listen = mkOption {
      type = types.strMatching "([0-9A-Za-z._-]+|\\[[0-9a-fA-F:.]+(%[0-9A-Za-z._-]+)?])?:${port}";
      default = ":8080";
      example = "10.0.0.10:8080";
      description = "Where it listens, as HOST:PORT; without a host, on every address.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to open the port of {option}`listen` in the firewall.";
    };

    tls = {
      enable = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether to serve HTTPS, and no plain HTTP. {option}`plasmacloud.cluster.deployer.url` has to say so too.";
      };
      certFile = file "/var/lib/acme/deployer.example.org/fullchain.pem" "The certificate with those between it and the root, in PEM.";
      keyFile = file "/var/lib/acme/deployer.example.org/key.pem" "The key of the certificate, in PEM. ${outside}";
      clientCaFile = file "/var/lib/secrets/clients-ca.pem" "A CA, in PEM: only clients that have a certificate of it are served. Null: any client.";
      clientAuth = mkOption {
        type = types.enum [
          "required"
          "optional"
        ];
        default = "required";
        example = "optional";
        description = "With {option}`plasmacloud.deployer.tls.clientCaFile`: whether clients without a certificate are served too.";
      };
    };

    tokens = {
      required = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether a machine needs a token to join, of {command}`plasmactl token create` or of the file. Else any machine may report as any node.";
      };
      joinFile = file "/run/secrets/join-tokens" "Tokens by which nodes join, beside those of {command}`plasmactl token create`; with it, tokens are required. ${outside}";
      operatorsFile = file "/run/secrets/operators" "The tokens of operators, or the names in their certificates, with their roles. Null: anybody may look, and nobody may give orders. ${outside}";
    };

    approval = mkOption {
      type = types.enum [
        "none"
        "undeclared"
        "all"
      ];
      default = "none";
      example = "all";
      description = "Whose machines wait for an operator's approval before they are a node: of none, of nodes that no manifest names, or of all.";
    };

    store = {
      type = mkOption {
        type = types.enum [
          "bolt"
          "etcd"
        ];
        default = "bolt";
        example = "etcd";
        description = "Where the registry is kept: in a file of one deployer, or in etcd for several.";
      };
      path = mkOption {
        type = types.strMatching "/var/lib/plasmacloud-deployer/[0-9A-Za-z_][0-9A-Za-z._-]*";
        default = "/var/lib/plasmacloud-deployer/state.db";
        example = "/var/lib/plasmacloud-deployer/nodes.db";
        description = "The file, with type bolt; directly below the service's state directory.";
      };
      etcd = {
        endpoints = mkOption {
          type = types.listOf (types.strMatching "https?://([0-9A-Za-z._-]+|\\[[0-9a-fA-F:.]+]):${port}");
          default = [ ];
          example = [
            "https://10.0.0.21:2379"
            "https://10.0.0.22:2379"
          ];
          description = "The members of etcd, with type etcd.";
        };
        prefix = mkOption {
          type = types.strMatching "/[0-9A-Za-z._/-]+/";
          default = "/plasmacloud/";
          example = "/plasmacloud/rack1/";
          description = "What the keys begin with; one for each cluster.";
        };
        tls = {
          caFile = file "/var/lib/secrets/etcd-ca.pem" "The CA of etcd's certificates, in PEM. Null: those that the system believes.";
          certFile = file "/var/lib/secrets/etcd-client.pem" "The deployer's own certificate, in PEM.";
          keyFile = file "/var/lib/secrets/etcd-client.key" "The key of that certificate, in PEM. ${outside}";
        };
        username = mkOption {
          type = types.nullOr types.nonEmptyStr;
          default = null;
          example = "plasmacloud";
          description = "The user of etcd that the deployer is. Null: none.";
        };
        passwordFile = file "/run/secrets/etcd-password" "The password of that user. ${outside}";
        timeout = time "3s" "10s" "How long one operation may take, from 100ms to 1m.";
        compactInterval = time "5m" "1h" "How often old revisions are compacted, from 1m to 24h; 0s: never.";
      };
    };

    page = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether to serve the web page beside the API.";
    };

    manifest = mkOption {
      type = types.nullOr types.path;
      default = if config.plasmacloud.cluster.nodes == { } then null else "/etc/plasmacloud/manifest.json";
      defaultText = lib.literalMD "the manifest of {option}`plasmacloud.cluster`, where that is defined";
      example = "/var/lib/plasmacloud-deployer/manifest.json";
      description = "The manifest of the cluster whose nodes may join.";
    };
    clusterManifest = mkOption {
      type = types.raw;
      internal = true;
      default = {
        data = (import ../../lib/cluster-data.nix { inherit lib; } config.plasmacloud).manifest;
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
    maxUnknownNodes = mkOption {
      type = types.ints.between 1 100000;
      default = 100;
      example = 1000;
      description = "How many of those there may be.";
    };

    provisioningTimeout = time "30m" "2h" "Time from Provisioning to Failed, from 1s to 720h.";
    heartbeatInterval = time "10s" "30s" "How often nodes report, from 1s to 1h, as long as there are few enough.";
    heartbeatRate = mkOption {
      type = types.ints.between 1 100000;
      default = 1000;
      example = 200;
      description = "How many heartbeats a second all nodes together send. Where there are more nodes, each reports less often.";
    };
    offlineAfter = mkOption {
      type = types.nullOr duration;
      default = null;
      example = "2m";
      description = "Silence after which a node is offline: more than a heartbeat, at most 24h. Null: three heartbeats. Longer by as much as {option}`heartbeatRate` makes heartbeats rarer.";
    };
  };
}
