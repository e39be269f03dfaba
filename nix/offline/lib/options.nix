{ lib }:
let
  hint = "Set the priority of one of them with `lib.mkForce value` or `lib.mkDefault value`.";
in
{
  mkOption = attrs: attrs // { _type = "option"; };
  isOption = x: x._type or null == "option";
  mkEnableOption =
    what:
    lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = "Whether to enable ${what}.";
    };
  mkPackageOption =
    pkgs: name:
    {
      default ? name,
      nullable ? false,
      example ? null,
      extraDescription ? "",
      pkgsText ? "pkgs",
    }:
    let
      expression =
        given:
        lib.literalExpression (
          if builtins.isList given then
            lib.concatMapStringsSep "." lib.strings.escapeNixIdentifier ([ pkgsText ] ++ given)
          else
            given
        );
      path = lib.toList default;
      called = if builtins.isList name then lib.last name else name;
    in
    lib.mkOption (
      {
        type = if nullable then lib.types.nullOr lib.types.package else lib.types.package;
        description =
          "The ${called} package to use."
          + lib.optionalString (extraDescription != "") " ${extraDescription}";
      }
      // lib.optionalAttrs (default != null) {
        default = lib.attrByPath path (throw "${lib.showOption path} cannot be found in ${pkgsText}") pkgs;
        defaultText = expression path;
      }
      // lib.optionalAttrs (default == null && nullable) { default = null; }
      // lib.optionalAttrs (example != null) { example = expression example; }
    );

  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
  literalMD = text: {
    _type = "literalMD";
    inherit text;
  };

  renderOptionValue =
    value:
    if value ? _type && value ? text then
      value
    else
      lib.literalExpression (lib.generators.toPretty { } value);
  # What documentation says of each option of a tree, those of submodules too.
  optionAttrSetToDocList = lib.options.optionAttrSetToDocList' [ ];
  optionAttrSetToDocList' =
    _: options:
    lib.concatMap (
      opt:
      let
        visible = opt.visible or true;
        below = opt.type.getSubOptions opt.loc;
        implied = opt.type.emptyValue ? value && opt.type.getSubModules == null;
      in
      [
        (
          {
            inherit (opt) loc;
            name = lib.showOption opt.loc;
            description = opt.description or null;
            declarations = lib.filter (file: file != "<unknown-file>") opt.declarations;
            internal = opt.internal or false;
            visible = if builtins.isBool visible then visible else visible == "shallow";
            readOnly = opt.readOnly or false;
            type = opt.type.description;
          }
          // lib.optionalAttrs (opt ? example) { example = lib.options.renderOptionValue opt.example; }
          // lib.optionalAttrs (opt ? defaultText || opt ? default || implied) {
            default = lib.options.renderOptionValue (
              opt.defaultText or opt.default or opt.type.emptyValue.value
            );
          }
        )
      ]
      ++ lib.optionals (visible == true || visible == "transparent") (
        if below == { } then [ ] else lib.options.optionAttrSetToDocList' opt.loc below
      )
    ) (lib.collect lib.isOption options);

  getValues = map (def: def.value);
  getFiles = map (def: def.file);

  showOption = lib.concatMapStringsSep "." (
    part:
    if part == "*" || builtins.match "<(.*)>" part != null then part else lib.strings.escapeNixIdentifier part
  );
  showFiles = lib.concatMapStringsSep " and " (file: "`${file}'");
  # A value that cannot be printed must not hide the message that it is for.
  showDefs = lib.concatMapStrings (
    def:
    let
      pretty = builtins.tryEval (
        let
          text = lib.generators.toPretty { depthLimit = 10; } def.value;
        in
        builtins.seq text text
      );
      lines = lib.splitString "\n" pretty.value;
      shown = lib.concatStringsSep "\n    " (lib.take 5 lines ++ lib.optional (lib.length lines > 5) "...");
    in
    "\n- In `${def.file}'"
    + lib.optionalString pretty.success (
      if lib.length lines > 1 then ":\n    ${shown}" else ": ${shown}"
    )
  );

  mergeDefaultOption =
    loc: defs:
    let
      values = lib.getValues defs;
      every = predicate: lib.all predicate values;
    in
    if lib.length values == 1 then
      lib.head values
    else if every lib.isFunction then
      x: lib.mergeDefaultOption loc (map (def: def // { value = def.value x; }) defs)
    else if every builtins.isList then
      lib.concatLists values
    else if every builtins.isAttrs then
      lib.mergeAttrsList values
    else if every builtins.isBool then
      lib.any lib.id values
    else if every builtins.isString then
      lib.concatStrings values
    else if every builtins.isInt && every (x: x == lib.head values) then
      lib.head values
    else
      throw "Cannot merge definitions of `${lib.showOption loc}'. Definition values:${lib.options.showDefs defs}";

  mergeOneOption = lib.mergeUniqueOption { message = ""; };
  mergeUniqueOption =
    {
      message,
      merge ? _: defs: (lib.head defs).value,
    }:
    loc: defs:
    if lib.length defs == 1 then
      merge loc defs
    else
      throw "The option `${lib.showOption loc}' is defined multiple times while it's expected to be unique.\n${message}\nDefinition values:${lib.options.showDefs defs}\n${hint}";

  mergeEqualOption =
    loc: defs:
    let
      first = lib.head defs;
      other = lib.findFirst (def: def.value != first.value) null (lib.tail defs);
    in
    if other == null then
      first.value
    else
      throw "The option `${lib.showOption loc}' has conflicting definition values:${
        lib.options.showDefs [
          first
          other
        ]
      }\n${hint}";
}
