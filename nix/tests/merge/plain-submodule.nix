# nix/lib/plain-submodule.nix gives what types.submodule gives.
{ lib }:
let
  inherit (lib) mkOption types;
  plainSubmodule = import ../../lib/plain-submodule.nix { inherit lib; };

  machine.options = {
    name = mkOption { type = types.str; };
    tags = mkOption {
      type = types.listOf types.str;
      default = [ "none" ];
    };
    size = mkOption {
      type = types.nullOr types.int;
      default = null;
      apply = size: if size == null then "any" else toString size;
    };
    disk = {
      device = mkOption {
        type = types.str;
        default = "/dev/sda";
      };
      parts.root = mkOption {
        type = types.lines;
        default = "";
      };
    };
    parts = mkOption {
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options.label = mkOption {
          type = types.str;
          default = name;
        };
      }));
      default = { };
    };
  };

  cases = {
    untouched = [ { m.a.name = "a"; } ];
    everything = [
      {
        m.a = {
          name = "a";
          tags = [ "x" ];
          size = 1;
          disk.device = "/dev/sdb";
          disk.parts.root = "r";
          parts.one = { };
        };
      }
    ];
    severalModules = [
      {
        m.a.name = "a";
        m.a.tags = [ "first" ];
        m.a.disk.parts.root = "1";
        m.b = lib.mkIf false { };
      }
      {
        m.a = {
          tags = [ "second" ];
          disk.parts.root = "2";
          disk.device = lib.mkDefault "/dev/sdc";
          parts.one.label = "1";
        };
        m.c.name = "c";
      }
    ];
    order = [
      {
        m.a.name = "a";
        m.a.tags = lib.mkAfter [ "after" ];
      }
      { m.a.tags = [ "usual" ]; }
      { m.a.tags = lib.mkBefore [ "before" ]; }
    ];
    priorities = [
      {
        m.a.name = lib.mkDefault "a";
        m.a.size = lib.mkForce 2;
      }
      {
        m.a.name = "b";
        m.a.size = 3;
        m.a.tags = lib.mkOverride 1600 [ "weaker than the default" ];
      }
      (lib.mkIf true { m.a.disk.device = lib.mkIf false "/dev/sdd"; })
    ];
    merged = [
      {
        m.a = lib.mkMerge [
          { name = "a"; }
          { tags = [ "1" ]; }
          (lib.mkIf true { tags = lib.mkMerge [ [ "2" ] [ "3" ] ]; })
        ];
      }
    ];
    wholeMachines = [
      {
        m.a = lib.mkForce {
          name = "a";
          tags = [ "forced" ];
        };
        m."b.c" = lib.mkDefault {
          name = "default";
          tags = [ "lost" ];
        };
      }
      {
        m.a.tags = [ "lost" ];
        m."b.c".name = "b";
      }
    ];
    imported = [
      {
        imports = [
          {
            m.a.tags = [ "imported" ];
            m.a.disk.parts.root = "imported";
          }
        ];
        m.a.name = "a";
        m.a.tags = [ "importing" ];
        m.a.disk.parts.root = "importing";
      }
      { m.a.disk.parts.root = lib.mkBefore "before"; }
    ];
    emptyGroups = [
      {
        m.a.name = "a";
        m.a.disk.parts = { };
        m.a.parts = { };
      }
    ];
    # What types.submodule has to see to.
    inAGroup = [
      { m.a.name = "a"; }
      { m.a.disk = lib.mkIf true { device = "/dev/sde"; }; }
      {
        m.b.name = "b";
        m.b.disk = lib.mkMerge [
          { device = lib.mkDefault "/dev/sdf"; }
          { parts = lib.mkForce { root = "r"; }; }
        ];
      }
    ];
    functions = [
      {
        m.a =
          { config, name, ... }:
          {
            name = "${name} on ${config.disk.device}";
          };
      }
      { m.a.tags = [ "x" ]; }
    ];
    files = [
      { m.a = ../merge-parts/machine.nix; }
      {
        m.a.tags = [ "x" ];
        m.b.name = "b";
      }
    ];
    ofItsOwn = [
      (
        { config, ... }:
        {
          m.a.name = "a";
          m.a.disk = lib.mkIf (config.m.a.name == "a") { device = "/dev/sdh"; };
          m.b.name = lib.mkIf (config.m.a.name == "a") "b";
        }
      )
    ];
    ownOptions = [
      {
        m.a =
          { config, ... }:
          {
            options.twice = mkOption { default = config.name + config.name; };
            config.name = "a";
          };
      }
      { m.b.name = "b"; }
    ];
    freeform = [
      {
        options.m = mkOption {
          type = types.attrsOf (types.submodule { freeformType = types.attrsOf types.int; });
        };
      }
      {
        m.a.name = "a";
        m.a.rack = 5;
      }
    ];
    furtherOptions = [
      {
        options.m = mkOption {
          type = types.attrsOf (
            types.submodule (
              { config, ... }:
              {
                options.shout = mkOption {
                  type = types.str;
                  default = lib.toUpper config.name;
                };
              }
            )
          );
        };
      }
      { m.a.name = "a"; }
      {
        m.b.name = "b";
        m.b.shout = "x";
      }
    ];
    ofItself = [
      (
        { config, ... }:
        {
          m.a.name = config.m.b.disk.device;
          m.b.name = config.m.a.name;
          m.b.disk.device = "/dev/sdg";
        }
      )
    ];
  };

  evaluated =
    submodule: modules:
    let
      result = lib.evalModules {
        modules = [
          { options.m = mkOption { type = types.attrsOf (submodule machine); }; }
        ]
        ++ modules;
      };
    in
    {
      inherit (result.config) m;
      extended = (result.extendModules { modules = [ { m.a.tags = [ "more" ]; } ]; }).config.m.a;
      documented = map (o: o.name) (
        lib.filter (o: !o.internal) (lib.optionAttrSetToDocList { inherit (result.options) m; })
      );
    };
in
lib.mapAttrs (
  name: modules:
  let
    plain = evaluated plainSubmodule modules;
  in
  lib.throwIf (plain != evaluated types.submodule modules)
    "plain-submodule: ${name} is ${builtins.toJSON plain}, and not what types.submodule gives"
    plain.m
) cases
