{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { };
      config.x = 1;
    }
    {
      _file = "b.nix";
      x = 2;
    }
  ];
}).config
