{
  imports = [ ../base.nix ];
  plasmacloud.network.fiberlbBgp.enable = true;
}
