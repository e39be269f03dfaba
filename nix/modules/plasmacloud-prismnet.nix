# A node's share of plasmacloud.network.prismnetIntegration.
{ lib, config, ... }:
let
  cfg = config.plasmacloud.network.prismnetIntegration;
in
{
  imports = [ ./options/node.nix ];

  config = lib.mkIf cfg.enable {
    virtualisation.vswitch.enable = true;
    boot.kernelModules = [
      "openvswitch"
      "geneve"
    ];
  };
}
