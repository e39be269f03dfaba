# A module that gives nodes an option of its own, and nodes that are functions.
{ lib, config, ... }:
{
  imports = [ ../base.nix ];
  options.plasmacloud.cluster.nodes = lib.mkOption {
    type = lib.types.attrsOf (
      lib.types.submodule (
        { name, config, ... }:
        {
          options.rack = lib.mkOption {
            type = lib.types.str;
            default = "rack-of-${name}";
          };
          config.labels.rack = config.rack;
        }
      )
    );
  };
  config = {
    plasmacloud.cluster.nodes = {
      node01.rack = "a1";
      node02 =
        { config, ... }:
        {
          deployment.tags = [ config.rack ];
        };
    };
    warnings = lib.mapAttrsToList (
      id: n: "${id}: ${n.rack}, ${n.deployment.targetHost}"
    ) config.plasmacloud.cluster.nodes;
  };
}
