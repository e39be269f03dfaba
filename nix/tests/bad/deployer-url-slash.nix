{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://deployer:8080/";
}
