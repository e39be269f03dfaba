# What plasmacloud.network.prismnetIntegration comes to on a node.
{ lib, mkCluster }:
let
  nodeOf =
    id: module: nodeModule:
    (mkCluster {
      modules = [
        ./prismnet-cluster.nix
        module
      ];
      nodeModules.${id} = nodeModule;
    }).nixosConfigurations.${id}.config;

  # Fake packages have no hash worth keeping.
  readable =
    text:
    lib.concatStrings (
      lib.filter builtins.isString (builtins.split "/nix/store/[0-9a-z]{32}-" text)
    );
  settings = config: builtins.fromJSON config.environment.etc."plasmacloud/prismnet.json".text;
  unit = config: name: {
    inherit (config.systemd.services.${name})
      after
      environment
      partOf
      requires
      stopIfChanged
      wantedBy
      wants
      ;
    path = map (p: p.pname) config.systemd.services.${name}.path;
    serviceConfig = lib.mapAttrs (
      _: v: if builtins.isString v then readable v else v
    ) config.systemd.services.${name}.serviceConfig;
  };
  firewall = config: {
    inherit (config.networking.firewall)
      allowedTCPPorts
      allowedUDPPorts
      ;
    extraCommands = lib.splitString "\n" config.networking.firewall.extraCommands;
    extraInputRules = lib.splitString "\n" config.networking.firewall.extraInputRules;
  };

  plain = nodeOf "node01" { } { };
  all = {
    plasmacloud.network.prismnetIntegration = {
      southbound = {
        addresses = [
          "10.0.0.11"
          "2001:DB8:0:1::21"
        ];
        port = 16642;
      };
      tls.enable = false;
      encapsulation.type = "vxlan";
      bridgeMappings = {
        external = "br-ex";
        storage = "br-st";
      };
      monitorAll = true;
      probeInterval = "1m30.5s";
      externalIds = {
        ovn-transport-zones = "rack1";
        ovn-openflow-probe-interval = "10";
      };
      nodes = {
        node01.encapsulationIp = "2001:DB8:50::11";
        node02 = {
          systemId = "chassis-02";
          encapsulationIp = "2001:db8:50::12";
          bridgeMappings.external = "br-uplink";
          gateway = true;
          externalIds.ovn-transport-zones = "rack2";
        };
      };
    };
  };
  nft = {
    networking.nftables.enable = true;
  };
in
{
  plain = {
    settings = settings plain;
    inherit (plain.boot) kernelModules;
    vswitch = plain.virtualisation.vswitch.enable;
    units = lib.genAttrs [ "ovn-controller" "plasmacloud-prismnet" ] (unit plain);
    firewall = firewall plain;
    nftables = firewall (nodeOf "node01" { } nft);
    worker = firewall (nodeOf "node02" { } nft);
    closed = firewall (nodeOf "node01" { plasmacloud.network.prismnetIntegration.openFirewall = false; } { });
    noIPv6 = firewall (nodeOf "node01" all { networking.enableIPv6 = false; });
  };
  all = lib.genAttrs [ "node01" "node02" ] (
    id:
    let
      config = nodeOf id all nft;
    in
    {
      settings = settings config;
      inherit (config.boot) kernelModules;
      controller = readable config.systemd.services.ovn-controller.serviceConfig.ExecStart;
      inherit (config.systemd.services.ovn-controller.environment) SYSTEM_ID;
      firewall = firewall config;
    }
  );
  # What is said of an encapsulation address that no interface has.
  warnings =
    let
      warnings = nodeModule: (nodeOf "node01" { } nodeModule).warnings;
    in
    {
      unknown = warnings { };
      there = warnings { nix-nos.interfaces.eth0.addresses = [ "10.0.0.11/24" ]; };
      onVlan = warnings {
        nix-nos.interfaces.eth0 = { };
        nix-nos.vlans.tunnels = {
          interface = "eth0";
          id = 50;
          addresses = [ "10.0.0.11/24" ];
        };
      };
      missing = warnings { nix-nos.interfaces.eth0.addresses = [ "10.0.0.12/24" ]; };
      byDHCP = warnings {
        nix-nos.interfaces.eth0 = {
          addresses = [ "10.0.0.12/24" ];
          dhcp = "ipv4";
        };
      };
    };
  # A machine that has the cluster's modules and is none of its nodes.
  outside = lib.attrNames (
    lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        ./prismnet-cluster.nix
        ../modules/plasmacloud-network.nix
        ../nix-nos/modules/bgp
      ];
    }
  ).config.systemd.services;
}
