{
  imports = [ ../../examples/three-nodes/cluster.nix ];
}
