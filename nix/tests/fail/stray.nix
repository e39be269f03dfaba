{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { type = types.int; };
      x = 1;
    }
  ];
}).config
