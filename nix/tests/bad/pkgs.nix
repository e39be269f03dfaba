{ pkgs, ... }:
{
  imports = [ ../base.nix ];
  plasmacloud.cluster.deployer.url = "http://${pkgs.hello}";
}
