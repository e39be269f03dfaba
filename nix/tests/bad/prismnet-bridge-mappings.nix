{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration = {
    bridgeMappings = {
      "external,more" = "br-ex";
      storage = "br-int";
    };
    nodes.node01.bridgeMappings.external = "br-with-a-long-name";
  };
}
