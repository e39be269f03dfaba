{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption {
        type = types.int;
        default = 1;
      };
    }
    {
      _file = "b.nix";
      options.x = mkOption {
        type = types.int;
        default = 2;
      };
    }
  ];
}).config
