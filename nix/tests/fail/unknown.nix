{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.alpha = {
        beta = mkOption { type = types.int; };
        gamma = mkOption { type = types.int; };
      };
    }
    {
      _file = "b.nix";
      alpha.bta = 1;
    }
  ];
}).config
