# A node's share of plasmacloud.network.prismnetIntegration: Open vSwitch, its
# settings for OVN, and ovn-controller.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  ip = import ../nix-nos/lib/ip.nix;
  inherit (config.plasmacloud) cluster network node;
  cfg = network.prismnetIntegration;
  prismnet = import ../lib/prismnet.nix { inherit lib; } config.plasmacloud;
  vswitch = config.virtualisation.vswitch.package;

  file = "plasmacloud/prismnet.json";
  settings = builtins.toJSON (prismnet.externalIds node.id) + "\n";
  ovsdb = "unix:/run/openvswitch/db.sock";

  # Of the machine's interfaces, where nix-nos knows all of their addresses.
  interfaces = lib.attrValues ((config.nix-nos.interfaces or { }) // (config.nix-nos.vlans or { }));
  allKnown = interfaces != [ ] && lib.all (i: i.dhcp == "none" && !i.acceptRA) interfaces;
  addresses = map (address: ip.canonicalOrGiven (lib.head (lib.splitString "/" address))) (
    lib.concatMap (i: i.addresses) interfaces
  );
  encapsulationIp = prismnet.encapsulationIp node.id;

  # { ipv4 = [ address ]; ipv6 = [ address ]; }, without a family that has none.
  byFamily = lib.groupBy (address: if ip.isIPv6 address then "ipv6" else "ipv4");
  canonical =
    addresses: map ip.canonicalOrGiven (lib.filter (address: address != null) addresses);
  ports =
    [
      {
        protocol = "udp";
        port = prismnet.encapsulationPort;
        from = byFamily (map prismnet.encapsulationIp (lib.attrNames cluster.nodes));
      }
    ]
    ++
      lib.optional
        (lib.elem (ip.canonicalOrGiven cluster.nodes.${node.id}.ip) (canonical cfg.southbound.addresses))
        {
          protocol = "tcp";
          inherit (cfg.southbound) port;
          from = byFamily (
            canonical (
              lib.concatMap (n: [
                n.ip
                n.ipv6
              ]) (lib.attrValues cluster.nodes)
            )
          );
        };
  # One line for each port and family.
  rules =
    rule:
    lib.concatMapStrings (
      p:
      lib.concatStrings (
        lib.mapAttrsToList (family: from: rule p family from + "\n") (
          lib.filterAttrs (family: _: family == "ipv4" || config.networking.enableIPv6) p.from
        )
      )
    ) ports;
  firewall =
    {
      nftables.extraInputRules = rules (
        p: family: from:
        "${if family == "ipv6" then "ip6" else "ip"} saddr { ${lib.concatStringsSep ", " from} } ${p.protocol} dport ${toString p.port} accept"
      );
      iptables.extraCommands = rules (
        p: family: from:
        "${if family == "ipv6" then "ip6tables" else "iptables"} -w -A nixos-fw -p ${p.protocol} --dport ${toString p.port} -s ${lib.concatStringsSep "," from} -j nixos-fw-accept"
      );
    }
    .${if config.networking.nftables.enable then "nftables" else "iptables"};
in
{
  imports = [ ./options/node.nix ];

  options.plasmacloud.network.prismnetIntegration.package = lib.mkOption {
    type = lib.types.package;
    default = pkgs.ovn;
    defaultText = lib.literalExpression "pkgs.ovn";
    example = lib.literalExpression "pkgs.ovn-lts";
    description = "Where ovn-controller comes from. It is set in nixosModules or nodeModules of mkCluster.";
  };

  config = lib.mkIf (cfg.enable && node.data != null) {
    warnings =
      lib.optional (allKnown && !(lib.elem encapsulationIp addresses))
        "plasmacloud.network.prismnetIntegration.nodes.${node.id}.encapsulationIp: no interface of nix-nos.interfaces or nix-nos.vlans has ${encapsulationIp}, where the other nodes send what is for ${node.id}; add it to the addresses of one, or write an address that one has.";

    virtualisation.vswitch.enable = true;
    boot.kernelModules = [
      "openvswitch"
      cfg.encapsulation.type
    ];
    environment.systemPackages = [ cfg.package ];
    environment.etc.${file}.text = settings;
    networking.firewall = lib.mkIf cfg.openFirewall firewall;

    systemd.services.plasmacloud-prismnet = {
      description = "PrismNET's settings in Open vSwitch";
      documentation = [ "https://github.com/centra/plasmacloud" ];
      # With every start of the database, which may begin empty (resetOnStart).
      wantedBy = [
        "multi-user.target"
        "ovsdb.service"
      ];
      requires = [ "ovsdb.service" ];
      partOf = [ "ovsdb.service" ];
      after = [
        "ovsdb.service"
        "ovs-vswitchd.service"
      ];
      restartTriggers = [ settings ];
      startLimitIntervalSec = 0;
      path = [
        pkgs.jq
        vswitch
      ];
      environment = {
        SETTINGS = "/etc/${file}";
        OVSDB = ovsdb;
      };
      script = builtins.readFile ./prismnet-apply.sh;
      serviceConfig = import ./hardening.nix // {
        Type = "oneshot";
        RemainAfterExit = true;
        Restart = "on-failure";
        RestartSec = "2s";
        TimeoutStartSec = "30s";
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = [ "AF_UNIX" ];
        UMask = "0077";
      };
    };

    systemd.services.ovn-controller = {
      description = "OVN's controller of this node";
      documentation = [ "man:ovn-controller(8)" ];
      wantedBy = [ "multi-user.target" ];
      # It follows changed settings by itself, and outlives the restarts of both.
      wants = [
        "ovs-vswitchd.service"
        "plasmacloud-prismnet.service"
      ];
      after = [
        "network.target"
        "ovs-vswitchd.service"
        "plasmacloud-prismnet.service"
      ];
      startLimitIntervalSec = 0;
      # So that the new preStop looks, before the new settings are there.
      stopIfChanged = false;
      path = [
        cfg.package
        pkgs.coreutils
        vswitch
      ];
      environment = {
        OVN_RUNDIR = "/run/ovn";
        OVS_RUNDIR = "/run/openvswitch";
        OVSDB = ovsdb;
        SYSTEM_ID = prismnet.systemId node.id;
      };
      preStop = builtins.readFile ./ovn-controller-stop.sh;
      serviceConfig = import ./hardening.nix // {
        Type = "exec";
        ExecStart = lib.concatStringsSep " " (
          [
            "${cfg.package}/bin/ovn-controller"
            "--pidfile=/run/ovn/ovn-controller.pid"
            "-vconsole:info"
            "-vsyslog:off"
          ]
          ++ lib.optionals cfg.tls.enable [
            "--private-key=${toString cfg.tls.privateKey}"
            "--certificate=${toString cfg.tls.certificate}"
            "--ca-cert=${toString cfg.tls.caCertificate}"
          ]
          ++ [ ovsdb ]
        );
        Restart = "always";
        RestartSec = "1s";
        TimeoutStopSec = "15s";

        # PrismNET's other daemons have their sockets in it too.
        RuntimeDirectory = "ovn";
        RuntimeDirectoryPreserve = true;
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_NETLINK"
          "AF_UNIX"
        ];
        UMask = "0077";
      };
    };
  };
}
