/*
  TOML 1.0 of an attribute set: a key with a plain value first, then the tables,
  [a.b] for a set and [[a.b]] for each set in a list.
*/
{ lib }:
let
  isTable = v: builtins.isAttrs v && !(lib.isStringLike v);
  isTables = v: builtins.isList v && v != [ ] && lib.all isTable v;
  key = name: if builtins.match "[A-Za-z0-9_-]+" name != null then name else builtins.toJSON name;
  path = lib.concatMapStringsSep "." key;

  inline =
    v:
    if builtins.isList v then
      "[${lib.concatMapStringsSep ", " inline v}]"
    else if isTable v then
      "{ ${lib.concatStringsSep ", " (lib.mapAttrsToList (n: x: "${key n} = ${inline x}") v)} }"
    else if builtins.isPath v || builtins.isAttrs v then
      builtins.toJSON "${v}"
    else
      builtins.toJSON v;

  body =
    at: table:
    let
      below = lib.filterAttrs (_: v: isTable v || isTables v) table;
      plain = removeAttrs table (lib.attrNames below);
    in
    lib.concatStrings (lib.mapAttrsToList (n: v: "${key n} = ${inline v}\n") plain)
    + lib.concatStrings (
      lib.mapAttrsToList (
        n: v:
        let
          here = at ++ [ n ];
        in
        if isTables v then
          lib.concatMapStrings (item: "\n[[${path here}]]\n${body here item}") v
        else
          "\n[${path here}]\n${body here v}"
      ) below
    );
in
body [ ]
