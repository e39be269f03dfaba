{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.node02.service = [ "fiberlb" ];
}
