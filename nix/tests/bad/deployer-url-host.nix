{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://ho st";
}
