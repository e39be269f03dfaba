{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.nodes.node02.encapsulationIp = "2001:db8:50::12";
}
