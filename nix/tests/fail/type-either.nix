{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { type = types.either types.int (types.listOf types.str); };
    }
    {
      _file = "b.nix";
      x = "one";
    }
  ];
}).config
