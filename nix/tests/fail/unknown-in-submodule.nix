{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption {
        type = types.attrsOf (types.submodule { options.port = mkOption { type = types.port; }; });
      };
    }
    {
      _file = "b.nix";
      x.n.prot = 1;
    }
  ];
}).config
