{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x.y = mkOption { type = types.int; };
    }
    {
      _file = "b.nix";
      x = 3;
    }
  ];
}).config
