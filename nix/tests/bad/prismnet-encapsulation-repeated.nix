{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.nodes = {
    node01.encapsulationIp = "2001:db8:50::11";
    node02.encapsulationIp = "2001:DB8:50:0::11";
  };
}
