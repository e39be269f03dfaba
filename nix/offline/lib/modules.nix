/*
  The module system: modules are collected (imports followed, each key once),
  their option declarations and definitions are laid over each other level by
  level, and every option merges what is left of its definitions after mkIf,
  mkMerge, mkOverride and mkOrder have been worked off.
*/
{ lib }:
let
  inherit (lib)
    any
    attrNames
    concatMap
    elem
    filter
    head
    isFunction
    isOption
    length
    mapAttrs
    optional
    optionalString
    setAttrByPath
    showFiles
    showOption
    types
    ;

  inherit (lib.options) showDefs;

  tag = value: value._type or null;
  priorities = {
    normal = 100;
    order = 1000;
  };

  builtinModule =
    {
      prefix,
      specialArgs,
      args,
    }:
    {
      _file = "lib/modules.nix";
      key = "lib/modules.nix";
      options._module = {
        args = lib.mkOption {
          type = types.lazyAttrsOf types.raw;
          internal = prefix != [ ];
          description = "Further arguments of each module.";
        };
        check = lib.mkOption {
          type = types.bool;
          default = true;
          internal = true;
          description = "Whether a definition without an option is an error.";
        };
        freeformType = lib.mkOption {
          type = types.nullOr types.optionType;
          default = null;
          internal = true;
          description = "The type that takes the definitions without an option.";
        };
        specialArgs = lib.mkOption {
          readOnly = true;
          internal = true;
          description = "Arguments that may be used in imports.";
        };
      };
      config._module = {
        inherit args specialArgs;
      };
    };

  evalModules =
    {
      modules,
      prefix ? [ ],
      specialArgs ? { },
      class ? null,
    }:
    let
      builtinArgs = {
        inherit extendModules;
        moduleType = types.submoduleWith { inherit modules specialArgs class; };
      };
      collected = collect {
        inherit class;
        modulesPath = toString (specialArgs.modulesPath or "");
        modules = modules ++ [
          (builtinModule {
            inherit prefix specialArgs;
            args = builtinArgs;
          })
        ];
        args = {
          inherit lib options specialArgs;
          _class = class;
          _prefix = prefix;
          config = builtins.addErrorContext "if you get an infinite recursion here, `imports` of some module depends on `config`" config;
        }
        // specialArgs;
      };
      # The module system gives a module precedence over those it imports.
      ordered = lib.reverseList collected;
      tree = overlay prefix ordered (
        concatMap (
          m:
          map (value: {
            inherit (m) file;
            inherit value;
          }) (pushDown m.config)
        ) ordered
      );

      options = tree.options;
      declared = valuesOf options;
      freeform = declared._module.freeformType;
      config =
        if freeform == null then
          declared
        else
          lib.recursiveUpdate (
            if tree.rest == [ ] then
              { }
            else
              freeform.merge prefix (
                map (def: {
                  inherit (def) file;
                  value = setAttrByPath def.path def.value;
                }) tree.rest
              )
          ) declared;

      checked = builtins.seq (
        if declared._module.check && freeform == null && tree.rest != [ ] then
          throw (unknownOption prefix options (head tree.rest))
        else
          null
      );

      extendModules =
        more:
        evalModules {
          inherit class;
          modules = modules ++ more.modules or [ ];
          specialArgs = specialArgs // more.specialArgs or { };
          prefix = more.prefix or prefix;
        };
    in
    {
      _type = "configuration";
      options = checked options;
      config = checked (removeAttrs config [ "_module" ]);
      _module = checked config._module;
      type = builtinArgs.moduleType;
      inherit extendModules class;
    };

  valuesOf = mapAttrs (_: node: if isOption node then node.value else valuesOf node);

  unknownOption =
    prefix: options: def:
    let
      parent = lib.init def.path;
      siblings = attrNames (lib.attrByPath parent { } options);
      names = if parent == [ ] then lib.remove "_module" siblings else siblings;
      wanted = lib.last def.path;
      distance = name: lib.strings.levenshtein wanted name;
      ofLikeLength = filter (
        name:
        let
          more = builtins.stringLength name - builtins.stringLength wanted;
        in
        more >= -2 && more <= 2
      ) names;
      near = lib.take 3 (lib.sortOn distance (if length names < 100 then names else ofLikeLength));
      show = name: "`${showOption (prefix ++ parent ++ [ name ])}'";
      hint =
        if near == [ ] then
          ""
        else if length near == 1 then
          "\n\nDid you mean ${show (head near)}?"
        else
          "\n\nDid you mean ${lib.concatMapStringsSep ", " show (lib.init near)} or ${show (lib.last near)}?";
      nothingDeclared = optionalString (attrNames options == [ "_module" ]) (
        if prefix == [ ] then
          "\n\nIt seems as if you're trying to declare an option by placing it into `config' rather than `options': none is declared at all.\n"
        else
          "\n\nHowever there are no options defined in `${showOption prefix}'. This can happen if you e.g. declared your options in `types.submodule' under `config' rather than `options'.\n"
      );
    in
    builtins.addErrorContext
      "while evaluating the error message for definitions for `${showOption (prefix ++ def.path)}', which is an option that does not exist"
      (
        builtins.addErrorContext "while evaluating a definition from `${def.file}'"
          "The option `${showOption (prefix ++ def.path)}' does not exist. Definition values:${showDefs [ def ]}${hint}${nothingDeclared}"
      );

  # --- from what the user wrote to a list of uniform modules ---

  uniform =
    file: key: m:
    let
      meta = [
        "_class"
        "_file"
        "key"
        "disabledModules"
        "imports"
        "freeformType"
      ];
      structured = m ? config || m ? options;
      stray = attrNames (
        removeAttrs m (
          meta
          ++ [
            "options"
            "config"
            "meta"
          ]
        )
      );
      withFreeform =
        config:
        if m ? freeformType then
          lib.mkMerge [
            config
            { _module.freeformType = m.freeformType; }
          ]
        else
          config;
      withMeta =
        config:
        if m ? meta then
          lib.mkMerge [
            config
            { inherit (m) meta; }
          ]
        else
          config;
    in
    if !(builtins.isAttrs m) then
      throw "module ${file} (${key}) does not look like a module."
    else if structured && stray != [ ] then
      throw "Module `${key}' has an unsupported attribute `${head stray}'. This is caused by introducing a top-level `config' or `options' attribute: move ${toString stray} into `config'."
    else
      {
        file = toString m._file or file;
        key = toString m.key or key;
        class = m._class or null;
        disabled = m.disabledModules or [ ];
        imports = m.imports or [ ] ++ (if structured then [ ] else m.require or [ ]);
        options = if structured then m.options or { } else { };
        config = withFreeform (
          if structured then withMeta (m.config or { }) else removeAttrs m (meta ++ [ "require" ])
        );
      };

  /*
    A module function is called with exactly the arguments that it names, each
    lazily: what _module.args holds is part of the result that is still being
    computed.
  */
  callModule =
    key: f: args:
    f (
      args
      // mapAttrs (
        name: _:
        builtins.addErrorContext "while evaluating the module argument `${name}' in \"${key}\":" (
          args.${name} or args.config._module.args.${name}
        )
      ) (lib.functionArgs f)
    );

  load =
    args: file: key: m:
    if isFunction m then
      uniform file key (callModule key m args)
    else if builtins.isAttrs m then
      if elem (tag m) [
        "if"
        "override"
      ] then
        uniform file key { config = m; }
      else if m ? _type && m._type != "module" then
        throw (
          "Expected a module, but found a value of type ${lib.strings.escapeNixString m._type}, while trying to load a module into ${file}"
          + optionalString (args._prefix != [ ]) ", while trying to load a module into `${showOption args._prefix}`"
          + "."
          + optionalString (tag m == "configuration") " It has been evaluated already; please only import the modules that make up the configuration."
        )
      else
        uniform file key m
    else if builtins.isList m then
      throw "Module imports can't be nested lists: remove one level of lists. Definitions: ${
        showDefs [
          {
            inherit file;
            value = m;
          }
        ]
      }"
    else
      let
        name = toString m;
        content = import m;
      in
      uniform name name (if isFunction content then callModule name content args else content);

  collect =
    {
      modules,
      args,
      class,
      modulesPath,
    }:
    let
      branch =
        file: key:
        lib.imap1 (
          n: m:
          let
            module = load args file "${key}:anon-${toString n}" m;
          in
          if class != null && module.class != null && module.class != class then
            throw "The module `${module.file}` (class: ${lib.strings.escapeNixString module.class}) cannot be imported into a module evaluation that expects class ${lib.strings.escapeNixString class}."
          else
            {
              inherit (module) key;
              inherit module;
              children = branch module.file module.key module.imports;
            }
        );
      roots = branch "<unknown-file>" "" modules;
      disabledKey =
        file: m:
        if builtins.isString m then
          if lib.hasPrefix "/" m then m else "${modulesPath}/${m}"
        else if builtins.isAttrs m then
          m.key
            or (throw "Module `${file}` contains a disabledModules item that is an attribute set, presumably a module, that does not have a `key` attribute. Name the file, or give the module a key.")
        else
          toString m;
      disabledIn =
        nodes: concatMap (node: map (disabledKey node.module.file) node.module.disabled ++ disabledIn node.children) nodes;
      disabled = disabledIn roots;
      enabled = if disabled == [ ] then lib.id else filter (node: !(elem node.key disabled));
    in
    map (node: node.module) (
      builtins.genericClosure {
        startSet = enabled roots;
        operator = node: enabled node.children;
      }
    );

  # --- declarations and definitions, level by level ---

  /*
    overlay prefix modules defs -> { options; rest; }

    options: the tree of evaluated options. rest: the definitions under this
    prefix that no option takes, each with its path.
  */
  overlay =
    prefix: modules: defs:
    let
      declarations = builtins.zipAttrsWith (_: found: found) (
        map (
          m:
          if builtins.isAttrs m.options then
            mapAttrs (name: decl: {
              inherit (m) file;
              options = decl;
              position = builtins.unsafeGetAttrPos name m.options;
            }) m.options
          else
            throw "An option declaration for `${showOption prefix}' in `${m.file}' is ${builtins.typeOf m.options}, and must be an attribute set."
        ) modules
      );
      checkedDefs = map (
        def:
        if builtins.isAttrs def.value then
          def
        else
          throw "In module `${def.file}', you're trying to define a value of type `${builtins.typeOf def.value}'\nrather than an attribute set for the option\n`${showOption prefix}'!"
      ) defs;
      defsByName = builtins.zipAttrsWith (_: found: found) (
        map (
          def:
          mapAttrs (_: value: {
            inherit (def) file;
            inherit value;
          }) def.value
        ) checkedDefs
      );
      pushedDown =
        name:
        concatMap (
          def:
          map (value: {
            inherit (def) file;
            inherit value;
          }) (pushDown def.value)
        ) (defsByName.${name} or [ ]);

      level = mapAttrs (
        name: decls:
        let
          loc = prefix ++ [ name ];
          whole = filter (decl: isOption decl.options) decls;
          mistyped = filter (decl: (decl.options._type or "option") != "option") decls;
          partial = filter (decl: !(isOption decl.options)) decls;
          leaf = decls: {
            options = evalOptionValue loc (mergeDeclarations loc decls) (defsByName.${name} or [ ]);
            rest = [ ];
          };
        in
        if mistyped != [ ] then
          throw "In module ${(head mistyped).file}: expected an option declaration at option path `${showOption loc}` but got an attribute set with type ${(head mistyped).options._type}"
        else if partial == [ ] then
          leaf decls
        else if whole == [ ] then
          overlay loc decls (pushedDown name)
        else if lib.all (decl: decl.options.type.name or null == "submodule") whole then
          leaf (map (decl: if isOption decl.options then decl else treeAsOption decl) decls)
        else
          throw "The option `${showOption loc}' in module `${(head whole).file}' would be a parent of the following options, but its type `${
            (head whole).options.type.description or "<no description>"
          }' does not support nested options.\n${
            lib.concatStringsSep "\n" (
              lib.naturalSort (
                concatMap (
                  decl:
                  map (
                    child: " - option(s) with prefix `${showOption (loc ++ [ child ])}' in module `${decl.file}'"
                  ) (attrNames decl.options)
                ) partial
              )
            )
          }"
      ) declarations;

      under = name: map (def: def // { path = [ name ] ++ def.path or [ ]; });
    in
    {
      options = mapAttrs (_: l: l.options) level;
      rest =
        if defs == [ ] then
          [ ]
        else
          lib.concatLists (
            lib.mapAttrsToList under (
              mapAttrs (_: l: l.rest) level // removeAttrs defsByName (attrNames declarations)
            )
          );
    };

  treeAsOption =
    decl:
    decl
    // {
      options = lib.mkOption {
        type = types.submoduleWith {
          modules = [ { inherit (decl) options; } ];
          shorthandOnlyDefinesConfig = null;
        };
      };
    };

  mergeDeclarations =
    loc: decls:
    let
      again =
        decl: found:
        throw "The option `${showOption loc}' in `${decl.file}' is already declared in ${showFiles found.declarations}.";
      step =
        found: decl:
        let
          new = decl.options;
          both = name: new ? ${name} && found ? ${name};
          merged = found.type.typeMerge new.type.functor;
          subModules = new.type.getSubModules or null;
        in
        if any both [
          "default"
          "example"
          "description"
          "apply"
        ] || (both "type" && merged == null) then
          again decl found
        else
          new
          // found
          // {
            declarations = found.declarations ++ [ decl.file ];
            declarationPositions = found.declarationPositions ++ [
              (
                if decl.position or null != null then
                  decl.position
                else
                  {
                    inherit (decl) file;
                    line = null;
                    column = null;
                  }
              )
            ];
            subModules =
              (if subModules == null then [ ] else map (lib.setDefaultModuleLocation decl.file) subModules)
              ++ found.subModules;
          }
          // (if both "type" then { type = merged; } else { });
      all = builtins.foldl' step {
        inherit loc;
        declarations = [ ];
        declarationPositions = [ ];
        subModules = [ ];
      } decls;
    in
    removeAttrs all [ "subModules" ]
    // {
      type =
        if all.type.getSubModules or null == null then
          all.type or types.unspecified
        else
          all.type.substSubModules all.subModules;
    };

  evalOptionValue =
    loc: opt: defs:
    let
      everyDef =
        optional (opt ? default) {
          file = head opt.declarations;
          value = lib.mkOptionDefault opt.default;
        }
        ++ defs;
      merged =
        if opt.readOnly or false && length everyDef > 1 then
          throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${
            showDefs (
              map (def: def // { value = (mergeDefinitions loc opt.type [ def ]).mergedValue; }) everyDef
            )
          }"
        else
          mergeDefinitions loc opt.type everyDef;
    in
    opt
    // {
      value = builtins.addErrorContext "while evaluating the option `${showOption loc}':" (
        if opt ? apply then opt.apply merged.mergedValue else merged.mergedValue
      );
      inherit (merged) isDefined;
      inherit (merged.final) highestPrio;
      definitions = lib.getValues merged.final.defs;
      files = lib.getFiles merged.final.defs;
      definitionsWithLocations = merged.final.defs;
      __toString = _: showOption loc;
    };

  # --- the definitions of one option ---

  mergeDefinitions = loc: type: defs: rec {
    final = workOff defs;
    isDefined = final.defs != [ ];
    mergedValue =
      if !isDefined then
        type.emptyValue.value
          or (throw "The option `${showOption loc}' was accessed but has no value defined. Try setting the option.")
      else if type ? complain then
        let
          reason = type.complain loc final.defs;
        in
        if reason == null then
          type.merge loc final.defs
        else
          throw "A definition for option `${showOption loc}' is not of type `${type.description}'. TypeError: ${reason}"
      else
        let
          bad = filter (def: !(type.check def.value)) final.defs;
        in
        if bad == [ ] then
          type.merge loc final.defs
        else
          throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:${showDefs bad}";
  };

  isPlain = value: !(builtins.isAttrs value && value ? _type);

  # mkIf and mkMerge first, then mkOverride, then mkOrder.
  workOff =
    defs:
    if length defs == 1 && isPlain (head defs).value then
      {
        inherit defs;
        highestPrio = priorities.normal;
      }
    else
      let
        found = concatMap (
          def:
          map (
            value:
            if tag value == "definition" then
              value
            else
              {
                inherit (def) file;
                inherit value;
              }
          ) (discharge def.value)
        ) defs;
        priority = def: if tag def.value == "override" then def.value.priority else priorities.normal;
        highestPrio =
          if length found == 1 then
            priority (head found)
          else
            builtins.foldl' (best: def: lib.min best (priority def)) 9999 found;
        strongest = map (
          def: if tag def.value == "override" then def // { value = def.value.content; } else def
        ) (filter (def: priority def == highestPrio) found);
      in
      {
        inherit highestPrio;
        defs = if any (def: tag def.value == "order") strongest then inOrder strongest else strongest;
      };

  inOrder =
    defs:
    let
      priority = def: def.priority or priorities.order;
    in
    builtins.sort (a: b: priority a < priority b) (
      map (
        def:
        if tag def.value == "order" then
          def
          // {
            value = def.value.content;
            inherit (def.value) priority;
          }
        else
          def
      ) defs
    );

  discharge =
    value:
    if tag value == "merge" then
      concatMap discharge value.contents
    else if tag value == "if" then
      if !(builtins.isBool value.condition) then
        throw "‘mkIf’ called with a non-Boolean condition"
      else if value.condition then
        discharge value.content
      else
        [ ]
    else
      [ value ];

  # The same for a level above the options: conditions move down to the leaves.
  pushDown =
    value:
    let
      inner =
        f: map (content: if builtins.isAttrs content then mapAttrs (_: f) content else content) (pushDown value.content);
    in
    if tag value == "merge" then
      concatMap pushDown value.contents
    else if tag value == "if" then
      inner (lib.mkIf value.condition)
    else if tag value == "override" then
      inner (lib.mkOverride value.priority)
    else
      [ value ];

  doRename =
    {
      from,
      to,
      visible,
      warn,
      use,
      withPriority ? true,
      condition ? true,
    }:
    { config, options, ... }:
    let
      old = lib.getAttrFromPath from options;
      type = (lib.attrByPath to { } options).type or null;
      moved = if withPriority then map (lib.mkOverride old.highestPrio) old.definitions else old.definitions;
    in
    {
      options = setAttrByPath from (
        lib.mkOption (
          {
            inherit visible;
            description = "Alias of {option}`${showOption to}`.";
            apply = _: use (lib.getAttrFromPath to config);
          }
          // lib.optionalAttrs (type != null) { inherit type; }
        )
      );
      config = lib.mkIf condition (
        lib.mkMerge [
          (setAttrByPath to (lib.mkIf old.isDefined (lib.mkMerge moved)))
          (
            if warn && options ? warnings then
              {
                warnings =
                  optional old.isDefined
                    "The option `${showOption from}' defined in ${showFiles old.files} has been renamed to `${showOption to}'.";
              }
            else
              { }
          )
        ]
      );
    };
in
{
  inherit
    doRename
    evalModules
    evalOptionValue
    mergeDefinitions
    ;
  # The type of an option that has all of these types: { file; value; } each.
  mergeTypes =
    loc: defs:
    (mergeDeclarations loc (
      map (def: {
        inherit (def) file;
        options = lib.mkOption { type = def.value; };
      }) defs
    )).type;
  # Of an option that takes a set: { <name> = { value; highestPrio; }; }.
  mergeAttrDefinitionsWithPrio =
    option:
    mapAttrs
      (
        name: defs:
        let
          merged = mergeDefinitions (option.loc ++ [ name ]) types.raw defs;
        in
        {
          value = merged.mergedValue;
          inherit (merged.final) highestPrio;
        }
      )
      (
        builtins.zipAttrsWith (_: defs: defs) (
          map (
            def:
            mapAttrs (_: value: {
              inherit (def) file;
              inherit value;
            }) def.value
          ) option.definitionsWithLocations
        )
      );

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkAssert =
    assertion: message:
    lib.mkIf (if assertion then true else throw "\nFailed assertion: ${message}");
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOptionDefault = lib.mkOverride 1500;
  mkDefault = lib.mkOverride 1000;
  mkImageMediaOverride = lib.mkOverride 60;
  mkForce = lib.mkOverride 50;
  mkVMOverride = lib.mkOverride 10;
  defaultOverridePriority = priorities.normal;

  mkOrder = priority: content: {
    _type = "order";
    inherit priority content;
  };
  mkBefore = lib.mkOrder 500;
  mkAfter = lib.mkOrder 1500;
  defaultOrderPriority = priorities.order;

  mkDefinition = def: def // { _type = "definition"; };
  setDefaultModuleLocation = file: m: {
    _file = file;
    imports = [ m ];
  };
  importApply =
    path: staticArgs: lib.setDefaultModuleLocation path (import path staticArgs);

  mkRemovedOptionModule =
    path: instead:
    { options, ... }:
    let
      old = lib.getAttrFromPath path options;
    in
    {
      options = setAttrByPath path (
        lib.mkOption {
          visible = false;
          apply =
            _:
            throw "The option `${showOption path}' can no longer be used since it's been removed. ${instead}";
        }
      );
      config.assertions = [
        {
          assertion = !old.isDefined;
          message = "The option definition `${showOption path}' in ${showFiles old.files} no longer has any effect; please remove it.\n${instead}\n";
        }
      ];
    };
  mkRenamedOptionModule =
    from: to:
    lib.doRename {
      inherit from to;
      visible = false;
      warn = true;
      use = lib.warn "Obsolete option `${showOption from}' is used. It was renamed to `${showOption to}'.";
    };
  mkAliasOptionModule =
    from: to:
    lib.doRename {
      inherit from to;
      visible = true;
      warn = false;
      use = lib.id;
    };
}
