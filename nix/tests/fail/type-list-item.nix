{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { type = types.listOf types.int; };
    }
    {
      _file = "b.nix";
      x = [
        1
        "two"
      ];
    }
  ];
}).config
