{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.nodes.node09.gateway = true;
}
