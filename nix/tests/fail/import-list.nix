{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      imports = [ [ ] ];
    }
  ];
}).config
