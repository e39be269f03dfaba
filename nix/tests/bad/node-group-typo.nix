{ lib, ... }:
{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.node02.deployment = lib.mkIf true { targethost = "node02.example.org"; };
}
