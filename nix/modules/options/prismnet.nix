# plasmacloud.network.prismnetIntegration: what PrismNET, the virtual network on
# OVN, needs of the hosts. Evaluated once for the whole cluster, and again in the
# NixOS configuration of each node.
{ lib, ... }:
{
  imports = [ ./cluster.nix ];

  options.plasmacloud.network.prismnetIntegration = {
    enable = lib.mkEnableOption ''
      what PrismNET needs of the host: the Open vSwitch daemons
      ({option}`virtualisation.vswitch.enable`) and the kernel modules
      openvswitch and geneve. No bridge and no port is made: that is
      PrismNET's own work'';
  };
}
