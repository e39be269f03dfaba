# What may stand behind a key of a unit file, and how it does.
{ lib }:
let
  inherit (lib) types;
  atom = types.oneOf [
    types.bool
    types.int
    types.float
    types.str
    types.path
    types.package
  ];
  shown = v: if builtins.isBool v then lib.boolToString v else toString v;
in
{
  # A key of a unit file may come several times: lists add up, single values
  # must agree.
  value = types.mkOptionType {
    name = "systemd option";
    check = x: atom.check x || (builtins.isList x && lib.all atom.check x);
    merge =
      loc: defs:
      if lib.any (def: builtins.isList def.value) defs then
        lib.concatMap (def: lib.toList def.value) defs
      else
        lib.mergeEqualOption loc defs;
  };
  lines =
    section:
    lib.concatStrings (
      lib.concatLists (
        lib.mapAttrsToList (key: v: map (item: "${key}=${shown item}\n") (lib.toList v)) section
      )
    );
}
