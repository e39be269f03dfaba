{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "deployer:8080";
}
