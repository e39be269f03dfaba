/*
  The options of the project's modules as Markdown: { <name> = text; }, one text
  for each of `roots`.

  options: the options of a NixOS configuration with the modules.
  roots: { <name> = folder; }. An option belongs to the longest folder that has
  a file which declares it; an option that no folder has is not ours.
  source: { <name> = prefix; }, what stands in a link before the rest of a
  file's path.
*/
{
  lib,
  options,
  roots ? {
    nix-nos = toString ./nix-nos;
    plasmacloud = toString ./.;
  },
  source ? {
    nix-nos = "../../nix/nix-nos";
    plasmacloud = "../../nix";
  },
}:
let
  titles = {
    nix-nos = "Options of nix-nos";
    plasmacloud = "Options of PlasmaCloud";
  };

  # The root of an option, or null. The stand-in for NixOS is nobody's.
  rootOf =
    option:
    let
      holds =
        name: lib.any (file: lib.hasPrefix "${roots.${name}}/" "${file}") option.declarations;
      found = lib.sort (a: b: lib.stringLength roots.${a} > lib.stringLength roots.${b}) (
        lib.filter holds (lib.attrNames roots)
      );
    in
    if
      found == [ ] || lib.any (file: lib.hasPrefix "${toString ./offline}/" "${file}") option.declarations
    then
      null
    else
      lib.head found;

  documented = lib.mapAttrs (
    _:
    lib.concatMap (
      option:
      map (
        doc:
        doc
        // {
          # Submodules have no file of their own.
          inherit (option) declarations;
        }
      ) (lib.filter (doc: doc.visible && !doc.internal) (lib.optionAttrSetToDocList { inherit option; }))
    )
  ) (lib.groupBy rootOf (lib.filter (option: rootOf option != null) (lib.collect lib.isOption options)));

  anchor = lib.replaceStrings [ "<" ">" "\"" " " ] [ "" "" "" "-" ];
  code = text: if lib.hasInfix "`" text then "`` ${text} ``" else "`${text}`";

  # { <name of an option> = its address, seen from the text `from`; }
  addresses =
    from:
    lib.mergeAttrsList (
      lib.mapAttrsToList (
        root: docs:
        lib.listToAttrs (
          map (doc: {
            inherit (doc) name;
            value = "${lib.optionalString (root != from) "${root}.md"}#${anchor doc.name}";
          }) docs
        )
      ) documented
    );

  # {option}`name` becomes a link, where it is one of ours; what else NixOS'
  # manual marks up becomes code.
  prose =
    known: loc: text:
    let
      linked =
        name:
        let
          beside = lib.showOption (lib.init loc ++ [ name ]);
          address = known.${name} or known.${beside} or null;
        in
        if address == null then code name else "[${code name}](${address})";
      pieces = builtins.split "\\{([a-z]+)}`([^`]+)`" (lib.trim text);
    in
    lib.concatStrings (
      map (
        piece:
        if builtins.isString piece then
          piece
        else if lib.head piece == "option" then
          linked (lib.last piece)
        else
          code (lib.last piece)
      ) pieces
    );

  # A value after its label: in the line where it fits, else as a block.
  value =
    known: loc: label: v:
    let
      given = lib.removeSuffix "\n" v.text;
      lines = lib.splitString "\n" given;
      joined = lib.concatMapStringsSep " " lib.trim lines;
      text =
        if lib.stringLength joined <= 72 && !(lib.hasInfix "''" given) && !(lib.hasInfix "#" given) then
          joined
        else
          given;
    in
    if v._type == "literalMD" then
      "- ${label}: ${prose known loc text}\n"
    else if lib.hasInfix "\n" text then
      "- ${label}:\n\n  ```nix\n${
        lib.concatMapStrings (line: "${lib.optionalString (line != "") "  "}${line}\n") (
          lib.splitString "\n" text
        )
      }  ```\n"
    else
      "- ${label}: ${code text}\n";

  entry =
    root: known: doc:
    ''

      ### <a id="${anchor doc.name}"></a>`${doc.name}`

      ${prose known doc.loc doc.description}

      - type: ${code doc.type}
    ''
    + (if doc ? default then value known doc.loc "default" doc.default else "- no default\n")
    + lib.optionalString (doc ? example) (value known doc.loc "example" doc.example)
    + lib.optionalString doc.readOnly "- read only\n"
    + "- declared in: ${
      lib.concatMapStringsSep ", " (
        file:
        let
          path = lib.removePrefix roots.${root} "${file}";
        in
        "[${lib.removePrefix "/" path}](${source.${root}}${path})"
      ) doc.declarations
    }\n";

  # Sections by the first two names: nix-nos.bgp, plasmacloud.cluster.
  sectionOf = doc: lib.concatStringsSep "." (lib.take 2 doc.loc);

  page =
    root: docs:
    let
      known = addresses root;
      sections = lib.groupBy sectionOf docs;
      twice = lib.filterAttrs (_: found: lib.length found > 1) (lib.groupBy (doc: anchor doc.name) docs);
      silent = lib.filter (doc: doc.description == null) docs;
    in
    lib.throwIf (twice != { }) "options-doc: one anchor of several options: ${toString (lib.attrNames twice)}" (
      lib.throwIf (silent != [ ])
        "options-doc: without a description: ${toString (map (doc: doc.name) silent)}"
        (
          ''
            # ${titles.${root} or "Options of ${root}"}

            Made from what the modules say themselves; `make update-golden` writes this page anew.
            In a name, `<name>` stands for a name of your choice, and `*` for each item of a list.

          ''
          + lib.concatMapStrings (name: "- [${name}](#${anchor name})\n") (lib.attrNames sections)
          + lib.concatStrings (
            lib.mapAttrsToList (
              name: own:
              ''

                ## ${lib.optionalString (!(known ? ${name})) "<a id=\"${anchor name}\"></a>"}${name}
              ''
              + lib.concatMapStrings (entry root known) own
            ) sections
          )
        )
    );
in
lib.mapAttrs page documented
