{ lib }:
let
  inherit (lib)
    all
    any
    concatMapStringsSep
    filter
    head
    isFunction
    isString
    last
    length
    mapAttrs
    mergeEqualOption
    mergeOneOption
    showFiles
    showOption
    ;
  inherit (lib.modules) evalModules mergeDefinitions;
  inherit (lib.options) showDefs;
  self = lib.types;

  /*
    A composite type tells what is wrong with a set of definitions itself
    (complain: null, or the reason). It is asked before it merges, so that
    `either` can try one type after the other.
  */
  complaint =
    type: loc: defs:
    if type ? complain then
      type.complain loc defs
    else
      let
        bad = filter (def: !(type.check def.value)) defs;
      in
      if bad == [ ] then null else "Definition values: ${showDefs bad}";
  composite =
    check: _: defs:
    let
      bad = filter (def: !(check def.value)) defs;
    in
    if bad == [ ] then null else "Definition values: ${showDefs bad}";

  # Two declarations of one option: their types become one, or null.
  plainFunctor = name: {
    inherit name;
    payload = null;
    type = self.${name} or null;
    binOp = _: _: null;
  };
  typeMergeOf =
    functor: other:
    if functor.name != other.name then
      null
    else if functor.payload == null then
      functor.type
    else
      let
        payload = functor.binOp functor.payload other.payload;
      in
      if payload == null then null else functor.type payload;
  elemFunctor = name: make: payload: {
    inherit name payload;
    type = payload: make payload.elemType;
    binOp =
      a: b:
      let
        elemType = a.elemType.typeMerge b.elemType.functor;
      in
      if elemType == null then null else payload // { inherit elemType; };
  };
  samePayload = a: b: if a == b then a else null;

  phrase =
    plainClasses: type:
    if builtins.elem (type.descriptionClass or null) plainClasses then
      type.description
    else
      "(${type.description})";
  nounOrComposite = phrase [
    "noun"
    "composite"
  ];
  nounOrConjunction = phrase [
    "noun"
    "conjunction"
  ];

  mkOptionType =
    {
      name,
      description ? name,
      functor ? plainFunctor name,
      ...
    }@given:
    {
      _type = "option-type";
      descriptionClass = null;
      check = _: true;
      merge = lib.mergeDefaultOption;
      emptyValue = { };
      getSubOptions = _: { };
      getSubModules = null;
      substSubModules = _: null;
      typeMerge = typeMergeOf functor;
      deprecationMessage = null;
      nestedTypes = { };
    }
    // given
    // {
      inherit description functor;
    };

  # A type whose definitions must all be equal.
  scalar =
    name: description: check:
    mkOptionType {
      inherit name description check;
      descriptionClass = "noun";
      merge = mergeEqualOption;
    };

  # What a type that wraps another passes through.
  wrap = elemType: rewrap: {
    inherit (elemType) getSubOptions getSubModules;
    substSubModules = modules: rewrap (elemType.substSubModules modules);
    nestedTypes = { inherit elemType; };
  };
  wrapUnder =
    elemType: placeholder: rewrap:
    wrap elemType rewrap
    // {
      getSubOptions = prefix: elemType.getSubOptions (prefix ++ [ placeholder ]);
    };

  attrsWith =
    {
      elemType,
      lazy ? false,
      placeholder ? "name",
    }@given:
    let
      check = builtins.isAttrs;
      merge =
        loc: defs:
        let
          merged = builtins.zipAttrsWith (name: mergeDefinitions (loc ++ [ name ]) elemType) (
            map (
              def:
              mapAttrs (_: value: {
                inherit (def) file;
                inherit value;
              }) def.value
            ) defs
          );
        in
        if lazy then
          mapAttrs (
            _: m: if m.isDefined then m.mergedValue else elemType.emptyValue.value or m.mergedValue
          ) merged
        else
          mapAttrs (_: m: m.mergedValue) (lib.filterAttrs (_: m: m.isDefined) merged);
    in
    mkOptionType (
      wrapUnder elemType "<${placeholder}>" (elemType: attrsWith (given // { inherit elemType; }))
      // {
        name = if lazy then "lazyAttrsOf" else "attrsOf";
        description = "${lib.optionalString lazy "lazy "}attribute set of ${nounOrComposite elemType}";
        descriptionClass = "composite";
        inherit check merge;
        complain = composite check;
        emptyValue.value = { };
        functor = {
          name = "attrsWith";
          type = attrsWith;
          payload = {
            inherit elemType lazy placeholder;
          };
          binOp =
            a: b:
            let
              elemType = a.elemType.typeMerge b.elemType.functor;
              # The usual placeholder yields to another.
              placeholder =
                if b.placeholder == "name" || a.placeholder == b.placeholder then
                  a.placeholder
                else if a.placeholder == "name" then
                  b.placeholder
                else
                  null;
            in
            if elemType == null || a.lazy != b.lazy || placeholder == null then
              null
            else
              {
                inherit elemType placeholder;
                inherit (a) lazy;
              };
        };
      }
    );

  submoduleWith =
    {
      modules,
      specialArgs ? { },
      shorthandOnlyDefinesConfig ? false,
      description ? null,
      class ? null,
    }@given:
    let
      asModule =
        { file, value, ... }:
        if builtins.isAttrs value && shorthandOnlyDefinesConfig == true then
          {
            _file = file;
            config = value;
          }
        else
          {
            _file = file;
            imports = [ value ];
          };
      base = evalModules {
        inherit class specialArgs;
        modules = [ { _module.args.name = lib.mkOptionDefault "‹name›"; } ] ++ modules;
      };
      freeform = base._module.freeformType;
      check = x: builtins.isAttrs x || isFunction x || self.path.check x;
      agree =
        what: a: b:
        if a == null || a == b then
          b
        else if b == null then
          a
        else
          throw "A submoduleWith option is declared multiple times with conflicting ${what} values ${
            lib.generators.toPretty { } a
          } and ${lib.generators.toPretty { } b}.";
    in
    mkOptionType {
      name = "submodule";
      description =
        if description != null then
          description
        else if freeform != null then
          "open submodule of ${nounOrComposite freeform}"
        else
          "submodule";
      descriptionClass = null;
      inherit check;
      complain = composite check;
      merge =
        loc: defs:
        (base.extendModules {
          prefix = loc;
          modules = [ { _module.args.name = last loc; } ] ++ map asModule defs;
        }).config;
      emptyValue.value = base.config;
      getSubOptions =
        prefix:
        (base.extendModules { inherit prefix; }).options
        // lib.optionalAttrs (freeform != null) { _freeformOptions = freeform.getSubOptions prefix; };
      getSubModules = modules;
      substSubModules = modules: submoduleWith (given // { inherit modules; });
      functor = {
        name = "submodule";
        type = submoduleWith;
        payload = {
          inherit
            modules
            specialArgs
            shorthandOnlyDefinesConfig
            description
            class
            ;
        };
        binOp = a: b: {
          modules = a.modules ++ b.modules;
          specialArgs = a.specialArgs // b.specialArgs;
          shorthandOnlyDefinesConfig =
            agree "shorthandOnlyDefinesConfig" a.shorthandOnlyDefinesConfig
              b.shorthandOnlyDefinesConfig;
          description = agree "description" a.description b.description;
          class = agree "class" a.class b.class;
        };
      };
    };

  between =
    low: high: name: prefix:
    self.addCheck self.int (x: x >= low && x <= high)
    // {
      inherit name;
      description = "${prefix} between ${toString low} and ${toString high} (both inclusive)";
    };
  unsignedBits =
    bits: max:
    between 0 max "unsignedInt${toString bits}" "${toString bits} bit unsigned integer;";
  signedBits =
    bits: max:
    between (0 - max - 1) max "signedInt${toString bits}" "${toString bits} bit signed integer;";
in
{
  inherit
    attrsWith
    mkOptionType
    submoduleWith
    ;
  isOptionType = x: x._type or null == "option-type";

  raw = mkOptionType {
    name = "raw";
    description = "raw value";
    descriptionClass = "noun";
    merge = mergeOneOption;
  };
  unspecified = mkOptionType {
    name = "unspecified";
    description = "unspecified value";
    descriptionClass = "noun";
  };
  anything = mkOptionType {
    name = "anything";
    descriptionClass = "noun";
    merge =
      loc: defs:
      let
        kind = x: if builtins.isAttrs x && lib.isStringLike x then "stringLikeSet" else builtins.typeOf x;
        kinds = lib.unique (map (def: kind def.value) defs);
        merges = {
          set = (self.attrsOf self.anything).merge;
          stringLikeSet = mergeOneOption;
          lambda =
            loc: defs: arg:
            self.anything.merge (loc ++ [ "<function body>" ]) (
              map (def: def // { value = def.value arg; }) defs
            );
        };
      in
      if length kinds > 1 then
        throw "The option `${showOption loc}' has conflicting option types in ${showFiles (lib.getFiles defs)}"
      else
        (merges.${head kinds} or mergeEqualOption) loc defs;
  };

  bool = scalar "bool" "boolean" builtins.isBool;
  boolByOr = scalar "boolByOr" "boolean (merged using or)" builtins.isBool // {
    merge = _: any (def: def.value);
  };
  int = scalar "int" "signed integer" builtins.isInt;
  float = scalar "float" "floating point number" builtins.isFloat;
  number = self.either self.int self.float;
  ints = {
    between = low: high: between low high "intBetween" "integer";
    unsigned = self.addCheck self.int (x: x >= 0) // {
      name = "unsignedInt";
      description = "unsigned integer, meaning >=0";
      descriptionClass = "nonRestrictiveClause";
    };
    positive = self.addCheck self.int (x: x > 0) // {
      name = "positiveInt";
      description = "positive integer, meaning >0";
      descriptionClass = "nonRestrictiveClause";
    };
    u8 = unsignedBits 8 255;
    u16 = unsignedBits 16 65535;
    u32 = unsignedBits 32 4294967295;
    s8 = signedBits 8 127;
    s16 = signedBits 16 32767;
    s32 = signedBits 32 2147483647;
  };
  port = self.ints.u16;

  str = scalar "str" "string" isString;
  nonEmptyStr = scalar "nonEmptyStr" "non-empty string" (
    x: isString x && builtins.match "[ \t\n]*" x == null
  );
  singleLineStr =
    scalar "singleLineStr" "(optionally newline-terminated) single-line string" (
      x: isString x && builtins.match "[^\n\r]*\n?" x != null
    )
    // {
      merge = loc: defs: lib.removeSuffix "\n" (mergeEqualOption loc defs);
    };
  strMatching =
    pattern:
    mkOptionType {
      name = "strMatching ${lib.strings.escapeNixString pattern}";
      description = "string matching the pattern ${pattern}";
      descriptionClass = "noun";
      check = x: isString x && builtins.match pattern x != null;
      merge = mergeEqualOption;
      functor = {
        name = "strMatching";
        payload = { inherit pattern; };
        type = payload: self.strMatching payload.pattern;
        binOp = samePayload;
      };
    };
  separatedString =
    sep:
    mkOptionType {
      name = "separatedString";
      description = "strings concatenated with ${builtins.toJSON sep}";
      descriptionClass = "noun";
      check = isString;
      merge = _: concatMapStringsSep sep (def: def.value);
      functor = {
        name = "separatedString";
        payload = { inherit sep; };
        type = payload: self.separatedString payload.sep;
        binOp = samePayload;
      };
    };
  lines = self.separatedString "\n";
  commas = self.separatedString ",";
  envVar = self.separatedString ":";
  passwdEntry =
    type:
    self.addCheck type (x: builtins.match "[^:\n]*" x != null)
    // {
      name = "passwdEntry ${type.name}";
      description = "${phrase [ "noun" ] type}, not containing newlines or colons";
      descriptionClass = "nonRestrictiveClause";
    };

  path = self.pathWith { absolute = true; };
  pathInStore = self.pathWith { inStore = true; };
  externalPath = self.pathWith {
    absolute = true;
    inStore = false;
  };
  # Each of the two: required, forbidden, or null for either.
  pathWith =
    {
      inStore ? null,
      absolute ? null,
    }:
    let
      inFolder = "${lib.escapeRegex builtins.storeDir}/[0-9a-df-np-sv-z]{32}-[^/]+";
      isInStore = x: builtins.match "(${inFolder}|/[0-9a-df-np-sv-z]{52})(/.*)?" (toString x) != null;
      isAbsolute = x: builtins.substring 0 1 (toString x) == "/";
    in
    lib.throwIf (inStore == true && absolute == false)
      "In pathWith, inStore means the path must be absolute"
      mkOptionType
      {
        name = "path";
        description =
          lib.optionalString (inStore != true && absolute == true) "absolute "
          + lib.optionalString (absolute == false) "relative "
          + "path"
          + lib.optionalString (inStore == true) " in the Nix store"
          + lib.optionalString (inStore == false) " not in the Nix store";
        descriptionClass = "noun";
        check =
          x:
          # A path literal would be copied to the store.
          (if inStore == false then isString x else lib.isStringLike x)
          && (inStore == null || isInStore x == inStore)
          && (absolute == null || isAbsolute x == absolute);
        merge = mergeEqualOption;
        functor = {
          name = "path";
          type = self.pathWith;
          payload = {
            inherit inStore absolute;
          };
          binOp = samePayload;
        };
      };
  serializableValueWith =
    {
      typeName,
      nullable ? true,
    }:
    let
      plain = self.oneOf [
        self.bool
        self.int
        self.float
        self.str
        self.path
        (self.attrsOf value)
        (self.listOf value)
      ];
      value = (if nullable then self.nullOr plain else plain) // {
        description = "${typeName} value";
      };
    in
    value;
  optionDeclaration = mkOptionType {
    name = "optionDeclaration";
    description = "option declaration";
    descriptionClass = "noun";
    # An option that was evaluated knows where it is.
    check = x: lib.isOption x && !(x ? loc);
    merge = mergeOneOption;
  };
  package = mkOptionType {
    name = "package";
    descriptionClass = "noun";
    check = x: lib.isDerivation x || lib.isStorePath x;
    merge = mergeOneOption;
  };
  shellPackage = self.package // {
    check = x: lib.isDerivation x && x ? shellPath;
  };
  attrs = mkOptionType {
    name = "attrs";
    description = "attribute set";
    check = builtins.isAttrs;
    merge = _: defs: lib.mergeAttrsList (lib.getValues defs);
    emptyValue.value = { };
  };
  optionType = mkOptionType {
    name = "optionType";
    descriptionClass = "noun";
    check = self.isOptionType;
    merge = loc: defs: if length defs == 1 then (head defs).value else lib.modules.mergeTypes loc defs;
  };

  enum =
    values:
    let
      show =
        v:
        if isString v then
          "\"${v}\""
        else if builtins.isInt v then
          toString v
        else if builtins.isBool v then
          lib.boolToString v
        else
          "<${builtins.typeOf v}>";
    in
    mkOptionType {
      name = "enum";
      description =
        if values == [ ] then
          "impossible (empty enum)"
        else if length values == 1 then
          "value ${show (head values)} (singular enum)"
        else
          "one of ${concatMapStringsSep ", " show values}";
      descriptionClass = if length values < 2 then "noun" else "conjunction";
      check = x: builtins.elem x values;
      merge = mergeEqualOption;
      functor = {
        name = "enum";
        payload = { inherit values; };
        type = payload: self.enum payload.values;
        binOp = a: b: { values = lib.unique (a.values ++ b.values); };
      };
    };

  listOf =
    elemType:
    let
      merge =
        loc: defs:
        map (m: m.mergedValue) (
          filter (m: m.isDefined) (
            lib.concatLists (
              lib.imap1 (
                n: def:
                lib.imap1 (
                  m: value:
                  mergeDefinitions (loc ++ [ "[definition ${toString n}-entry ${toString m}]" ]) elemType [
                    {
                      inherit (def) file;
                      inherit value;
                    }
                  ]
                ) def.value
              ) defs
            )
          )
        );
    in
    mkOptionType (
      wrapUnder elemType "*" self.listOf
      // {
        name = "listOf";
        description = "list of ${nounOrComposite elemType}";
        descriptionClass = "composite";
        check = builtins.isList;
        complain = composite builtins.isList;
        inherit merge;
        emptyValue.value = [ ];
        functor = elemFunctor "listOf" self.listOf { inherit elemType; };
      }
    );
  nonEmptyListOf =
    elemType:
    let
      list = self.addCheck (self.listOf elemType) (x: x != [ ]);
    in
    list
    // {
      description = "non-empty ${phrase [ "noun" ] list}";
      emptyValue = { };
      substSubModules = modules: self.nonEmptyListOf (elemType.substSubModules modules);
    };
  attrsOf = elemType: attrsWith { inherit elemType; };
  lazyAttrsOf =
    elemType:
    attrsWith {
      inherit elemType;
      lazy = true;
    };

  nullOr =
    elemType:
    mkOptionType (
      wrap elemType self.nullOr
      // {
        name = "nullOr";
        description = "null or ${nounOrConjunction elemType}";
        descriptionClass = "conjunction";
        check = x: x == null || elemType.check x;
        merge =
          loc: defs:
          if all (def: def.value == null) defs then
            null
          else if any (def: def.value == null) defs then
            throw "The option `${showOption loc}` is defined both null and not null, in ${showFiles (lib.getFiles defs)}."
          else
            elemType.merge loc defs;
        emptyValue.value = null;
        functor = elemFunctor "nullOr" self.nullOr { inherit elemType; };
      }
    );
  uniq = self.unique { message = ""; };
  unique =
    { message }:
    elemType:
    mkOptionType (
      wrap elemType (self.unique { inherit message; })
      // {
        name = "unique";
        inherit (elemType)
          description
          descriptionClass
          check
          emptyValue
          ;
        merge = lib.mergeUniqueOption {
          inherit message;
          inherit (elemType) merge;
        };
        functor = elemFunctor "unique" (self.unique { inherit message; }) { inherit elemType; };
      }
    );

  either =
    left: right:
    mkOptionType {
      name = "either";
      description =
        if left.descriptionClass == "nonRestrictiveClause" then
          "${left.description}, or ${nounOrConjunction right}"
        else
          "${nounOrConjunction left} or ${
            phrase [
              "noun"
              "conjunction"
              "composite"
            ] right
          }";
      descriptionClass = "conjunction";
      check = x: left.check x || right.check x;
      complain =
        loc: defs:
        if complaint left loc defs == null || complaint right loc defs == null then
          null
        else
          "The option `${showOption loc}` is neither a value of type `${left.description}` nor `${right.description}`, Definition values: ${showDefs defs}";
      merge =
        loc: defs:
        if complaint left loc defs == null then left.merge loc defs else right.merge loc defs;
      typeMerge =
        other:
        let
          sides =
            a: b:
            let
              l = left.typeMerge a.functor;
              r = right.typeMerge b.functor;
            in
            if l == null || r == null then null else self.either l r;
        in
        if other.name == "either" then sides other.payload.left other.payload.right else null;
      functor = {
        name = "either";
        payload = { inherit left right; };
      };
      nestedTypes = { inherit left right; };
    };
  oneOf =
    types:
    if types == [ ] then
      throw "types.oneOf needs to get at least one type in its argument"
    else
      builtins.foldl' self.either (head types) (lib.tail types);
  coercedTo =
    from: coerce: final:
    let
      coerced =
        loc:
        map (
          def: if complaint from loc [ def ] == null then def // { value = coerce def.value; } else def
        );
    in
    mkOptionType (
      wrap final (self.coercedTo from coerce)
      // {
        name = "coercedTo";
        description = "${phrase [ "noun" ] final} or ${phrase [ "noun" ] from} convertible to it";
        check = x: (from.check x && final.check (coerce x)) || final.check x;
        complain =
          loc: defs:
          if complaint final loc (coerced loc defs) == null then null else "Definition values: ${showDefs defs}";
        merge = loc: defs: final.merge loc (coerced loc defs);
        inherit (final) emptyValue;
        typeMerge = _: null;
        nestedTypes = {
          coercedType = from;
          finalType = final;
        };
      }
    );
  addCheck =
    type: check:
    type
    // {
      check = x: type.check x && check x;
    }
    // lib.optionalAttrs (type ? complain) {
      complain =
        loc: defs:
        let
          first = type.complain loc defs;
        in
        if first != null then first else composite check loc defs;
    };

  functionTo =
    elemType:
    mkOptionType (
      wrapUnder elemType "<function body>" self.functionTo
      // {
        name = "functionTo";
        description = "function that evaluates to a(n) ${nounOrComposite elemType}";
        descriptionClass = "composite";
        check = isFunction;
        merge = loc: defs: {
          __functionArgs = builtins.zipAttrsWith (_: all lib.id) (
            map (def: lib.functionArgs def.value) defs
          );
          __functor =
            _: arg:
            (mergeDefinitions (loc ++ [ "<function body>" ]) elemType (
              map (def: def // { value = def.value arg; }) defs
            )).mergedValue;
        };
        functor = elemFunctor "functionTo" self.functionTo { inherit elemType; };
      }
    );

  submodule =
    modules:
    submoduleWith {
      modules = lib.toList modules;
      shorthandOnlyDefinesConfig = true;
    };
  deferredModule = self.deferredModuleWith { };
  deferredModuleWith =
    {
      staticModules ? [ ],
    }:
    mkOptionType {
      name = "deferredModule";
      description = "module";
      descriptionClass = "noun";
      check = x: builtins.isAttrs x || isFunction x || self.path.check x;
      merge = loc: defs: {
        imports =
          staticModules
          ++ map (
            def: lib.setDefaultModuleLocation "${def.file}, via option ${showOption loc}" def.value
          ) defs;
      };
      getSubModules = staticModules;
      substSubModules = modules: self.deferredModuleWith { staticModules = modules; };
      functor = {
        name = "deferredModuleWith";
        payload = { inherit staticModules; };
        type = self.deferredModuleWith;
        binOp = a: b: { staticModules = a.staticModules ++ b.staticModules; };
      };
    };
}
