{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://[::1";
}
