# Where modules come from, in which order they count, and what they see.
{ lib }:
let
  inherit (lib) mkOption types;
  list = mkOption {
    type = types.listOf types.str;
    default = [ "default" ];
  };
  eval = modules: lib.evalModules { inherit modules; };
  config = modules: (eval modules).config;

  shared = {
    key = "shared";
    x = [ "shared" ];
  };
in
{
  order =
    (config [
      {
        options.x = list;
        imports = [
          {
            x = [ "import of 1" ];
            imports = [ { x = [ "import of import" ]; } ];
          }
        ];
        config.x = [ "1" ];
      }
      {
        x = [ "2" ];
        imports = [ { x = [ "import of 2" ]; } ];
      }
    ]).x;
  onceByKey =
    (config [
      { options.x = list; }
      { imports = [ shared ]; }
      {
        imports = [
          shared
          ../merge-parts/file.nix
        ];
      }
      ../merge-parts/file.nix
    ]).x;
  disabled =
    (config [
      { options.x = list; }
      ../merge-parts/file.nix
      {
        disabledModules = [
          ../merge-parts/file.nix
          { key = "shared"; }
        ];
        imports = [ shared ];
      }
    ]).x;
  arguments =
    (config [
      (
        {
          lib,
          config,
          options,
          extra,
          ...
        }@args:
        {
          options.x = list;
          options.y = mkOption { type = types.anything; };
          config.y = {
            inherit extra;
            inherit (config) x;
            declared = options.x.isDefined;
            hasSpecial = args ? specialArgs;
          };
        }
      )
      { _module.args.extra = "from _module.args"; }
    ]).y;
  special =
    (lib.evalModules {
      specialArgs = {
        which = ../merge-parts/file.nix;
        other = 1;
      };
      modules = [
        { options.x = list; }
        ({ which, ... }: { imports = [ which ]; })
      ];
    }).config.x;
  conditional =
    (config [
      {
        options = {
          on = lib.mkEnableOption "it";
          a.b.x = list;
        };
      }
      (
        { config, ... }:
        lib.mkIf config.on {
          a = lib.mkMerge [
            { b.x = [ "if" ]; }
            (lib.mkIf false { b.x = [ "never" ]; })
          ];
        }
      )
      { on = true; }
    ]).a.b.x;
  unchecked =
    (config [
      { options.x = list; }
      {
        _module.check = false;
        y = 3;
      }
    ]);
  freeform =
    (config [
      {
        freeformType = types.attrsOf (types.either types.int (types.attrsOf types.int));
        options.a.b = mkOption {
          type = types.str;
          default = "b";
        };
      }
      {
        c = 3;
        d.e = 4;
      }
    ]);
  extended =
    ((eval [ { options.x = list; } ]).extendModules { modules = [ { x = [ "more" ]; } ]; }).config.x;
  optionInfo =
    let
      inherit (eval [
        {
          _file = "declares.nix";
          options.a.x = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "a list";
          };
        }
        {
          _file = "defines.nix";
          a.x = lib.mkDefault [ "v" ];
        }
      ])
        options
        ;
    in
    {
      inherit (options.a.x)
        value
        definitions
        files
        isDefined
        highestPrio
        loc
        declarations
        description
        ;
      type = options.a.x.type.description;
      text = "${options.a.x}";
    };
  declaredTwice =
    (config [
      {
        options.x = mkOption {
          type = types.enum [ "a" ];
          description = "one";
        };
      }
      {
        options.x = mkOption {
          type = types.enum [ "b" ];
          default = "b";
        };
      }
    ]).x;
  apply =
    (config [
      {
        options.x = mkOption {
          type = types.int;
          default = 1;
          apply = x: x + 1;
        };
      }
    ]).x;
  renamed =
    let
      result = config [
        (lib.mkRenamedOptionModule [ "old" "x" ] [ "new" "x" ])
        {
          options.new.x = list;
          options.warnings = list;
        }
        {
          _file = "user.nix";
          old.x = [ "v" ];
        }
      ];
    in
    {
      inherit (result.new) x;
      warned = lib.length result.warnings;
    };
}
