{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.node02.ipv6 = "10.0.1.12";
}
