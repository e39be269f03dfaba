{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.a.x = mkOption { type = types.int; };
    }
  ];
}).config
