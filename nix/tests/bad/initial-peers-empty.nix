{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bootstrap.initialPeers = [ ];
}
