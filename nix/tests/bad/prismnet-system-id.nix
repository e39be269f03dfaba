{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.cluster.nodes.node03.ip = "10.0.0.13";
  plasmacloud.network.prismnetIntegration.nodes = {
    node01.systemId = "node02";
    node03.systemId = "node 03";
  };
}
