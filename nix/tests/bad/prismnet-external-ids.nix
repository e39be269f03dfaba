{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration = {
    externalIds = {
      ovn-remote = "tcp:10.0.0.99:6642";
      "a key" = "x";
      empty = "";
    };
    nodes.node02.externalIds.plasmacloud-keys = "system-id";
  };
}
