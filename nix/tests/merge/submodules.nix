# Options within options.
{ lib }:
let
  inherit (lib) mkOption types;
  config = modules: (lib.evalModules { inherit modules; }).config;
  person =
    { name, config, ... }:
    {
      options = {
        id = mkOption {
          type = types.str;
          default = name;
        };
        shout = mkOption {
          type = types.str;
          default = lib.toUpper config.id;
        };
        tags = mkOption {
          type = types.listOf types.str;
          default = [ ];
        };
      };
    };
in
{
  attrsOf =
    (config [
      { options.p = mkOption { type = types.attrsOf (types.submodule person); }; }
      {
        p.ann.tags = [ "1" ];
        p.bob = { };
      }
      {
        p.ann = {
          id = "a";
          tags = lib.mkBefore [ "0" ];
        };
        p.eve = lib.mkIf false { };
      }
      {
        p.bob =
          { config, ... }:
          {
            tags = [ config.shout ];
          };
      }
    ]).p;
  listOf =
    (config [
      { options.p = mkOption { type = types.listOf (types.submodule { imports = [ person ]; }); }; }
      { p = [ { id = "x"; } ]; }
      { p = [ { id = "y"; } ]; }
    ]).p;
  alone =
    (config [
      {
        options.p = mkOption {
          type = types.submodule {
            freeformType = types.attrsOf types.int;
            options.x = mkOption {
              type = types.int;
              default = 1;
            };
          };
          default = { };
        };
      }
      { p.y = 2; }
    ]).p;
  nullable =
    (config [
      {
        options.p = mkOption { type = types.nullOr (types.submodule person); };
        options.q = mkOption { type = types.nullOr (types.submodule person); };
      }
      {
        p = null;
        q.id = "q";
      }
    ]);
  coerced =
    (config [
      {
        options.p = mkOption {
          type = types.listOf (types.coercedTo types.str (id: { inherit id; }) (types.submodule person));
        };
      }
      {
        p = [
          "a"
          { id = "b"; }
        ];
      }
    ]).p;
  declaredInTwo =
    (config [
      { options.p = mkOption { type = types.attrsOf (types.submodule person); }; }
      {
        options.p = mkOption {
          type = types.attrsOf (
            types.submodule {
              options.age = mkOption {
                type = types.int;
                default = 7;
              };
            }
          );
        };
      }
      { p.ann = { }; }
    ]).p;
  treeIntoSubmodule =
    (config [
      {
        options.p = mkOption {
          type = types.submodule { };
          default = { };
        };
      }
      {
        options.p.x = mkOption {
          type = types.int;
          default = 3;
        };
      }
    ]).p;
  withSpecialArgs =
    (config [
      {
        options.p = mkOption {
          type = types.submoduleWith {
            specialArgs.n = 4;
            modules = [
              (
                { n, ... }:
                {
                  options.x = mkOption {
                    type = types.int;
                    default = n;
                  };
                }
              )
            ];
          };
          default = { };
        };
      }
    ]).p;
  deferred =
    let
      outer = config [
        { options.module = mkOption { type = types.deferredModule; }; }
        { module.x = 1; }
        { module = { y = 2; }; }
      ];
    in
    config [
      outer.module
      {
        options = {
          x = mkOption { type = types.int; };
          y = mkOption { type = types.int; };
        };
      }
    ];
}
