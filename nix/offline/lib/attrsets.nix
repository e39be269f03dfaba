{ lib }:
{
  inherit (builtins)
    attrNames
    attrValues
    catAttrs
    getAttr
    hasAttr
    intersectAttrs
    isAttrs
    listToAttrs
    mapAttrs
    removeAttrs
    zipAttrsWith
    ;

  nameValuePair = name: value: { inherit name value; };
  mapAttrs' =
    f: set: builtins.listToAttrs (map (name: f name set.${name}) (builtins.attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (builtins.attrNames set);
  attrsToList = lib.mapAttrsToList lib.nameValuePair;
  concatMapAttrs = f: set: lib.mergeAttrsList (lib.mapAttrsToList f set);
  mergeAttrsList = builtins.foldl' (a: b: a // b) { };
  mergeAttrs = a: b: a // b;
  filterAttrs =
    predicate: set:
    removeAttrs set (builtins.filter (name: !(predicate name set.${name})) (builtins.attrNames set));
  genAttrs = names: f: lib.genAttrs' names (name: lib.nameValuePair name (f name));
  genAttrs' = names: f: builtins.listToAttrs (map f names);
  optionalAttrs = condition: set: if condition then set else { };
  zipAttrs = builtins.zipAttrsWith (_: values: values);
  foldAttrs =
    f: start: sets:
    builtins.zipAttrsWith (_: lib.foldr f start) sets;
  foldlAttrs =
    f: start: set:
    builtins.foldl' (acc: name: f acc name set.${name}) start (builtins.attrNames set);
  getAttrs = names: set: lib.genAttrs names (name: set.${name});
  cartesianProduct =
    set:
    builtins.foldl' (
      rows: name: builtins.concatMap (row: map (value: row // { ${name} = value; }) set.${name}) rows
    ) [ { } ] (builtins.attrNames set);

  attrByPath =
    path: fallback: set:
    if path == [ ] then
      set
    else
      let
        name = builtins.head path;
      in
      if set ? ${name} then lib.attrByPath (builtins.tail path) fallback set.${name} else fallback;
  hasAttrByPath =
    path: set:
    path == [ ]
    || (
      set ? ${builtins.head path}
      && lib.hasAttrByPath (builtins.tail path) set.${builtins.head path}
    );
  getAttrFromPath =
    path: lib.attrByPath path (throw "cannot find attribute '${lib.concatStringsSep "." path}'");
  setAttrByPath =
    path: value:
    if path == [ ] then
      value
    else
      { ${builtins.head path} = lib.setAttrByPath (builtins.tail path) value; };
  attrVals = names: set: map (name: set.${name}) names;

  mapAttrsRecursive = lib.mapAttrsRecursiveCond (_: true);
  mapAttrsRecursiveCond =
    descend: f: set:
    let
      go =
        path:
        builtins.mapAttrs (
          name: value:
          if builtins.isAttrs value && descend value then
            go (path ++ [ name ]) value
          else
            f (path ++ [ name ]) value
        );
    in
    go [ ] set;
  collect =
    predicate: value:
    if predicate value then
      [ value ]
    else if builtins.isAttrs value then
      builtins.concatMap (lib.collect predicate) (builtins.attrValues value)
    else
      [ ];

  recursiveUpdateUntil =
    stop: left: right:
    let
      go =
        path:
        builtins.zipAttrsWith (
          name: values:
          let
            here = path ++ [ name ];
            a = builtins.elemAt values 1;
            b = builtins.head values;
          in
          if builtins.length values == 1 || stop here a b then b else go here values
        );
    in
    go [ ] [ right left ];
  recursiveUpdate = lib.recursiveUpdateUntil (
    _: a: b:
    !(builtins.isAttrs a && builtins.isAttrs b)
  );
  updateManyAttrsByPath = throw "the stand-in lib has no updateManyAttrsByPath";

  isDerivation = value: value.type or null == "derivation";
  toDerivation = path: {
    type = "derivation";
    name = builtins.baseNameOf (toString path);
    outPath = builtins.storePath path;
    outputName = "out";
  };
  getBin = package: package.bin or package;
  getExe =
    package: "${lib.getBin package}/bin/${package.meta.mainProgram or package.pname or package.name}";
  getExe' = package: name: "${lib.getBin package}/bin/${name}";
}
