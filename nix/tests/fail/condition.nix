{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { type = types.int; };
    }
    {
      _file = "b.nix";
      x = lib.mkIf "yes" 1;
    }
  ];
}).config
