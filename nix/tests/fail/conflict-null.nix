{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { type = types.nullOr types.int; };
      config.x = 1;
    }
    {
      _file = "b.nix";
      x = null;
    }
  ];
}).config
