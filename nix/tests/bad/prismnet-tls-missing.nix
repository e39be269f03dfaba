{
  imports = [ ../base.nix ];
  plasmacloud.network.prismnetIntegration.enable = true;
}
