{
  imports = [ ../one.nix ];
  plasmacloud.cluster.nodes.node01.ip = 10;
}
