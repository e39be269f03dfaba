{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.services.web = mkOption { type = types.int; };
    }
    {
      _file = "b.nix";
      service.web = 1;
    }
  ];
}).config
