/*
  A submodule of which a configuration has very many, such as the nodes of a
  cluster:

    type = types.attrsOf (plainSubmodule { options = { ... }; });

  It gives what types.submodule gives. That evaluates a module system and every
  option anew for each of them; this merges only the options that somebody has
  defined, and takes the defaults of all others from one evaluation. So a default
  may depend neither on another option nor on the name.

  Definitions that are not sets of its options (functions, mkIf around a group,
  an option that does not exist) are left to types.submodule. So are all, where
  another module declares further options.
*/
{ lib }:
let
  inherit (lib) isOption mapAttrs;

  isPlain =
    options: value:
    lib.isAttrs value
    && !(value ? _type)
    && lib.all (
      name: options ? ${name} && (isOption options.${name} || isPlain options.${name} value.${name})
    ) (lib.attrNames value);

  merge =
    loc: options: defs:
    let
      defsOf = lib.zipAttrs (
        map (def: mapAttrs (_: value: def // { inherit value; }) def.value) defs
      );
    in
    mapAttrs (
      name: option:
      let
        here = loc ++ [ name ];
        found = defsOf.${name} or [ ];
      in
      if !(isOption option) then
        merge here option found
      else if found == [ ] && option ? default then
        option.value
      else
        (lib.modules.evalOptionValue here option found).value
    ) options;

  plainSubmodule =
    modules:
    let
      submodule = lib.types.submodule modules;
      options = removeAttrs (lib.evalModules { modules = lib.toList modules; }).options [ "_module" ];
    in
    submodule
    // {
      merge =
        loc: defs:
        if lib.all (def: isPlain options def.value) defs then
          # evalModules takes the definitions of later modules first.
          merge loc options (lib.reverseList defs)
        else
          submodule.merge loc defs;
      substSubModules = plainSubmodule;
    };
in
plainSubmodule
