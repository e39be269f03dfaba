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
      x = {
        a = [
          1
          { b = ''
            two
            lines
          ''; }
        ];
        f = _: 1;
        g = 2;
      };
    }
  ];
}).config
