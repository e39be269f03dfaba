{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.southbound.addresses = [
    "control01"
    "10.0.0.11:6642"
    "127.0.0.1"
    "224.0.0.1"
  ];
}
