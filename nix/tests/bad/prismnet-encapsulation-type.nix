{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.encapsulation.type = "stt";
}
