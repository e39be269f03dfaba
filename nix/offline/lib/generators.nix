{ lib }:
{
  toJSON = _: builtins.toJSON;

  mkValueStringDefault =
    _: v:
    if builtins.isString v then
      v
    else if builtins.isBool v then
      lib.boolToString v
    else if v == null then
      "null"
    else if builtins.isAttrs v && !(lib.isStringLike v) then
      throw "generators.mkValueStringDefault: attrsets not supported"
    else if builtins.isList v then
      throw "generators.mkValueStringDefault: lists not supported"
    else
      toString v;
  mkKeyValueDefault =
    {
      mkValueString ? lib.generators.mkValueStringDefault { },
    }:
    separator: key: value:
    "${lib.escape [ separator ] key}${separator}${mkValueString value}";
  toKeyValue =
    {
      mkKeyValue ? lib.generators.mkKeyValueDefault { } "=",
      listsAsDuplicateKeys ? false,
      indent ? "",
    }:
    set:
    lib.concatStrings (
      lib.concatLists (
        lib.mapAttrsToList (
          key: value:
          map (v: "${indent}${mkKeyValue key v}\n") (
            if listsAsDuplicateKeys && builtins.isList value then value else [ value ]
          )
        ) set
      )
    );

  toPretty =
    {
      multiline ? true,
      indent ? "",
      # Where a value nests deeper than this, it is cut off.
      depthLimit ? null,
      ...
    }:
    value:
    let
      show =
        depth: indent: v:
        let
          inner = if multiline then "\n${indent}  " else " ";
          outer = if multiline then "\n${indent}" else " ";
          enclose =
            open: close: parts:
            open + inner + lib.concatStringsSep inner parts + outer + close;
          next = show (depth + 1) "${indent}  ";
          textLines = lib.filter builtins.isString (builtins.split "\n" v);
        in
        if depthLimit != null && depth > depthLimit then
          "<unevaluated>"
        else if builtins.isString v then
          if multiline && lib.length textLines > 1 then
            let
              escaped = map (builtins.replaceStrings [ "\${" "''" ] [ "''\${" "'''" ]) textLines;
              ending = lib.last escaped;
            in
            "''"
            + inner
            + lib.concatStringsSep inner (lib.init escaped)
            + (if ending == "" then outer else inner + ending)
            + "''"
          else
            "\"${lib.concatMapStringsSep "\\n" (lib.escape [ "\\" "\"" "\${" ]) textLines}\""
        else if builtins.isFloat v then
          builtins.toJSON v
        else if builtins.isBool v then
          lib.boolToString v
        else if v == null then
          "null"
        else if builtins.isList v then
          if v == [ ] then "[ ]" else enclose "[" "]" (map next v)
        else if lib.isFunction v then
          let
            args = lib.functionArgs v;
          in
          if args == { } then
            "<function>"
          else
            "<function, args: {${
              lib.concatStringsSep ", " (
                lib.mapAttrsToList (name: optional: if optional then "${name}?" else name) args
              )
            }}>"
        else if builtins.isAttrs v then
          if v == { } then
            "{ }"
          else if lib.isDerivation v then
            "<derivation ${v.name or "???"}>"
          else
            enclose "{" "}" (
              lib.mapAttrsToList (name: item: "${lib.strings.escapeNixIdentifier name} = ${next item};") v
            )
        else
          toString v;
    in
    show 0 indent value;
}
