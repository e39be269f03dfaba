{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bootstrap.initialPeers = [
    "node02"
    "node09"
  ];
}
