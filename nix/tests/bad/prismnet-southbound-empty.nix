{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.southbound.addresses = [ ];
}
