/*
  types.submodule, made cheap for a configuration that has very many of them,
  such as the nodes of a cluster:

    type = types.attrsOf (plainSubmodule { options = { ... }; });

  types.submodule evaluates a module system, and every option, for each value.
  This merges only the options that somebody has defined, and takes all others
  from one evaluation without any definition. That is right only while a default
  follows neither another option nor the name, which is why it takes options and
  nothing else: there is no function of config or name, and no config.

  Where definitions are more than sets of those options, types.submodule itself
  merges them: functions and files, mkIf around a group, an option that does not
  exist. It does so, too, for all values of an option that a second module
  declares as well, since merging the two types gives a types.submodule.
*/
{ lib }:
let
  inherit (lib) isOption mapAttrs;

  # Whether each name in it is an option, or a group of such, below `options`.
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

  # The module system gives the module back in a list, with its file.
  ofModules =
    modules:
    let
      submodule = lib.types.submodule modules;
      options = removeAttrs (lib.evalModules { inherit modules; }).options [ "_module" ];
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
      substSubModules = ofModules;
    };
in
{ options }: ofModules [ { inherit options; } ]
