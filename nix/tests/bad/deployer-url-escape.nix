{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://deployer/%zz";
}
