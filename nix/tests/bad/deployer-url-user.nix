{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://u:p@deployer:8080";
}
