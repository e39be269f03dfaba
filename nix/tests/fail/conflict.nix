{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption { type = types.str; };
      config.x = "one";
    }
    {
      _file = "b.nix";
      x = "two";
    }
  ];
}).config
