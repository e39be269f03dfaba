{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      imports = [ (lib.mkRemovedOptionModule [ "x" ] "Use y.") ];
      options.assertions = mkOption { type = types.listOf types.raw; };
    }
    {
      _file = "b.nix";
      x = 1;
    }
  ];
}).config
