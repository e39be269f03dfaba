{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.probeInterval = "500ms";
}
