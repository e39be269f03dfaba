{
  imports = [ ../one.nix ];
  plasmacloud.cluster.nodes.node01.ip = "10.0.0.300";
}
