{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.node02.ip = "10.0.0.99";
}
