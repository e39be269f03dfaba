{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.Node_4.ip = "10.0.0.14";
}
