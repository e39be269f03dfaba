/*
  The ISO that the machines of a cluster boot first, on top of nixpkgs' minimal
  installation image. It finds out which node a machine is, and then runs that
  node from memory or installs it. mkCluster makes it of a cluster; docs/iso.md
  says what happens at a boot.

  Nothing secret may be in here, since all of it is in the Nix store: a join
  token lies beside the store on the medium, where build-iso.sh puts it.
*/
{
  lib,
  config,
  pkgs,
  modulesPath,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.plasmacloud.iso;
  state = "/run/plasmacloud";
  # What build-iso.sh lays on the medium; NixOS mounts that at /iso.
  medium = "/iso/plasmacloud";
  nodesFile = "plasmacloud/nodes.json";
  # Where messages are seen by who stands in front of the machine, too.
  console = {
    StandardOutput = "journal+console";
    StandardError = "journal+console";
  };

  all = if cfg.manifest.data == null then { } else cfg.manifest.data.nodes;
  chosen =
    if cfg.node == null then
      all
    else
      lib.filterAttrs (id: _: id == cfg.node) all;
  unmarked = lib.attrNames (
    lib.filterAttrs (_: n: n.identity.macs == [ ] && n.identity.serial == null) chosen
  );
  installed = lib.filterAttrs (_: n: n.deployment.provision.mode == "install") chosen;
  # A system is looked at only where it is carried: it costs a whole evaluation.
  build = id: cfg.systems.${id}.config.system.build;
  unpartitioned = lib.filter (
    id: installed.${id}.deployment.provision.script == null && cfg.installFlake == null && !(build id ? diskoScript)
  ) (lib.attrNames installed);
  # What disko writes to, where that is not the disk that the cluster names.
  elsewhere = lib.filterAttrs (
    id: disks: disks != [ ] && !lib.elem installed.${id}.deployment.provision.disk disks
  ) (
    lib.mapAttrs (
      id: _: lib.mapAttrsToList (_: d: d.device) (cfg.systems.${id}.config.disko.devices.disk or { })
    ) (
      lib.filterAttrs (
        _: n: n.deployment.provision.script == null && cfg.installFlake == null
      ) installed
    )
  );

  # The environment of provision.sh.
  install =
    id:
    let
      inherit (installed.${id}.deployment.provision) disk script;
    in
    lib.filterAttrs (_: value: value != null) {
      NODE = id;
      DISK = disk;
      PARTITION =
        if script != null then
          "${pkgs.writeShellScript "partition-${id}" "set -euo pipefail\n${script}"}"
        else if cfg.installFlake == null then
          "${(build id).diskoScript}"
        else
          null;
      SYSTEM = if cfg.installFlake == null then "${(build id).toplevel}" else null;
      FLAKE = cfg.installFlake;
    };

  # One program alone, since space counts.
  agent = pkgs.plasmacloud-phone-home or (pkgs.callPackage ../package.nix {
    programs = [ "plasmacloud-phone-home" ];
  });
  phoneHome = pkgs.writeShellScript "plasmacloud-phone-home" ''
    args=(--config ${state}/cluster-config.json --secret-file ${state}/secret)
    if [ -e ${medium}/join-token ]; then args+=(--join-token-file ${medium}/join-token); fi
    if [ -e ${medium}/ca.pem ]; then args+=(--ca-file ${medium}/ca.pem); fi
    exec ${agent}/bin/plasmacloud-phone-home "''${args[@]}" "$@"
  '';
in
{
  imports = [
    "${modulesPath}/installer/cd-dvd/installation-cd-minimal.nix"
    ../modules/options/iso.nix
  ];

  options.plasmacloud.iso = {
    node = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "node01";
      description = "The only node that this ISO is for; null: every node of the cluster.";
    };
    passwordHash = mkOption {
      type = types.nullOr (types.strMatching "\\$[0-9a-z]+\\$[!-9;-~]+");
      default = null;
      example = "$6$FBMy0PbzYKCbVYGt$...";
      description = ''
        Hash of root's password, as crypt(5) has it; null: none, so that only
        keys log in. It is in the world-readable Nix store: take the hash of a
        long password made at random.
      '';
    };
    clusterName = mkOption {
      type = types.str;
      internal = true;
      description = "The name of the cluster.";
    };
    manifest = mkOption {
      type = types.raw;
      internal = true;
      description = "The manifest of the cluster.";
    };
    table = mkOption {
      type = types.raw;
      internal = true;
      readOnly = true;
      description = "What nodes.json says, as a value.";
    };
    systems = mkOption {
      type = types.raw;
      internal = true;
      description = "The NixOS systems of the cluster's nodes, by node.";
    };
  };

  config = {
    plasmacloud.iso.table = {
      schema_version = 1;
      nodes = lib.mapAttrsToList (id: n: {
        cluster_config = n.clusterConfig;
        inherit (n.identity) macs serial;
        install = if installed ? ${id} then install id else null;
      }) chosen;
    };

    assertions =
      map (message: {
        assertion = false;
        inherit message;
      }) cfg.manifest.failedAssertions
      ++ lib.optionals (cfg.manifest.data != null) [
        {
          assertion = cfg.node == null || all ? ${cfg.node};
          message = "plasmacloud.iso.node: there is no node \"${toString cfg.node}\"; name one of plasmacloud.cluster.nodes, or null for an ISO for all of them.";
        }
        {
          assertion = unpartitioned == [ ];
          message = "plasmacloud.cluster.nodes: nothing says how the disk of ${lib.concatStringsSep ", " unpartitioned} is laid out; import the disko module in nodeModules, or set deployment.provision.script.";
        }
      ]
      ++ lib.mapAttrsToList (id: disks: {
        assertion = false;
        message = "plasmacloud.cluster.nodes.${id}.deployment.provision.disk: ${installed.${id}.deployment.provision.disk}, and the node's disko.devices.disk has ${lib.concatStringsSep ", " disks}; name the same disk in both.";
      }) elsewhere;

    warnings =
      lib.optional (cfg.sshKeys == [ ] && cfg.passwordHash == null)
        "plasmacloud.iso.sshKeys: empty, so nobody can log in to a machine that runs from this ISO; add a key, or make the ISO with build-iso.sh."
      ++ lib.optional (cfg.node == null && unmarked != [ ])
        "plasmacloud.cluster.nodes: on an ISO for all nodes no machine will be ${lib.concatStringsSep ", " unmarked}; set identity.macs or identity.serial, or make an ISO for one node.";

    image.baseName = lib.mkForce "plasmacloud-${cfg.clusterName}${
      lib.optionalString (cfg.node != null) "-${cfg.node}"
    }";
    isoImage.volumeID = lib.mkForce (
      # No longer than the field of ISO 9660.
      lib.substring 0 32 "plasmacloud-${cfg.clusterName}"
    );

    # Addresses come by DHCP, NixOS' default. The name is the node's once it is known.
    networking.hostName = lib.mkDefault "plasmacloud-iso";

    # nixpkgs' image logs everybody in at the console, and has empty passwords.
    services.getty = {
      autologinUser = lib.mkForce null;
      helpLine = lib.mkForce "Log in as root. What happens to this machine: journalctl -u 'plasmacloud-*'";
    };
    services.openssh = {
      enable = true;
      settings = {
        PermitRootLogin = lib.mkForce (if cfg.passwordHash == null then "prohibit-password" else "yes");
        PasswordAuthentication = lib.mkForce (cfg.passwordHash != null);
        KbdInteractiveAuthentication = lib.mkForce false;
      };
    };
    users.users = {
      root = {
        initialHashedPassword = lib.mkForce (if cfg.passwordHash == null then "!" else cfg.passwordHash);
        openssh.authorizedKeys.keys = cfg.sshKeys;
      };
      nixos.initialHashedPassword = lib.mkForce "!";
    };

    environment.etc = {
      ${nodesFile}.text = builtins.toJSON cfg.table + "\n";
      "nixos/secrets/cluster-config.json".source = "${state}/cluster-config.json";
    };

    # What scripts that lay out a disk are written with, beside NixOS' installer.
    environment.systemPackages = [
      pkgs.dosfstools
      pkgs.e2fsprogs
      pkgs.gptfdisk
      pkgs.util-linux
    ];

    systemd.services = {
      plasmacloud-identify = {
        description = "Which node of the cluster this machine is";
        documentation = [ "https://github.com/centra/plasmacloud" ];
        wantedBy = [ "multi-user.target" ];
        startLimitIntervalSec = 0;
        serviceConfig =
          import ../modules/hardening.nix
          // console
          // {
            Type = "oneshot";
            RemainAfterExit = true;
            # It waits for network cards, and for somebody who plugs one in.
            TimeoutStartSec = "infinity";
            ExecStart = "${agent}/bin/plasmacloud-phone-home identify --nodes /etc/${nodesFile} --out ${state} --hostname";
            Restart = "on-failure";
            RestartSec = "5s";
            RestartPreventExitStatus = 78;
            RuntimeDirectory = "plasmacloud";
            RuntimeDirectoryPreserve = true;

            CapabilityBoundingSet = [ "CAP_SYS_ADMIN" ];
            ProtectHostname = false;
            RestrictAddressFamilies = "none";
            SystemCallFilter = [
              "@system-service"
              "sethostname"
            ];
          };
      };

      plasmacloud-phone-home = {
        description = "Reports of this node to the deployer";
        documentation = [ "https://github.com/centra/plasmacloud" ];
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        requires = [ "plasmacloud-identify.service" ];
        after = [
          "network-online.target"
          "plasmacloud-identify.service"
        ];
        startLimitIntervalSec = 0;
        unitConfig.ConditionPathExists = "!${state}/install.env";
        serviceConfig =
          import ../modules/hardening.nix
          // console
          // {
            Type = "exec";
            ExecStart = "${phoneHome} --phase ready --heartbeat --attempts 5";
            Restart = "always";
            RestartSec = "10s";
            RestartPreventExitStatus = 78;

            # The mainboard's UUID, by which a machine is known, is for root only.
            CapabilityBoundingSet = "";
            ReadWritePaths = [ state ];
            RestrictAddressFamilies = [
              "AF_INET"
              "AF_INET6"
              "AF_NETLINK"
              "AF_UNIX"
            ];
          };
      };

      plasmacloud-provision = {
        description = "Installation of this node";
        documentation = [ "https://github.com/centra/plasmacloud" ];
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        requires = [ "plasmacloud-identify.service" ];
        after = [
          "network-online.target"
          "plasmacloud-identify.service"
        ];
        startLimitIntervalSec = 0;
        unitConfig.ConditionPathExists = "${state}/install.env";
        # All that a shell on this machine has: disko's and an operator's scripts
        # take their tools from there.
        path = [ "/run/current-system/sw" ];
        environment = {
          PHONE_HOME = "${phoneHome}";
          STATE = state;
        };
        serviceConfig = console // {
          Type = "oneshot";
          RemainAfterExit = true;
          TimeoutStartSec = "infinity";
          EnvironmentFile = "${state}/install.env";
          ExecStart = "${pkgs.bash}/bin/bash ${./provision.sh}";
          # The deployer is away, or refuses until an operator resets the node.
          # Not again by itself: an installation that failed half way.
          Restart = "on-failure";
          RestartSec = "30s";
          RestartPreventExitStatus = "70 78";
        };
      };
    };
  };
}
