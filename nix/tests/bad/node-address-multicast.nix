{
  imports = [ ../one.nix ];
  plasmacloud.cluster.nodes.node01.ip = "224.0.0.1";
}
