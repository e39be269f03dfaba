{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://deployer:99999";
}
