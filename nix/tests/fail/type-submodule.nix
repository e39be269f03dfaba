{ lib }:
let
  inherit (lib) mkOption types;
in
(lib.evalModules {
  modules = [
    {
      _file = "a.nix";
      options.x = mkOption {
        type = types.attrsOf (types.submodule { options.y = mkOption { type = types.port; }; });
      };
    }
    {
      _file = "b.nix";
      x.n.y = 70000;
    }
  ];
}).config
