{ lib }:
let
  upper = lib.stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  lower = lib.stringToCharacters "abcdefghijklmnopqrstuvwxyz";
in
{
  inherit (builtins)
    concatStringsSep
    fromJSON
    hashString
    hasContext
    isString
    match
    replaceStrings
    split
    stringLength
    substring
    toJSON
    toString
    unsafeDiscardStringContext
    ;

  concatStrings = builtins.concatStringsSep "";
  concatMapStrings = f: list: builtins.concatStringsSep "" (map f list);
  concatMapStringsSep =
    separator: f: list:
    builtins.concatStringsSep separator (map f list);
  concatImapStringsSep =
    separator: f: list:
    builtins.concatStringsSep separator (lib.imap1 f list);
  concatMapAttrsStringSep =
    separator: f: set:
    builtins.concatStringsSep separator (lib.mapAttrsToList f set);
  concatLines = lib.concatMapStrings (line: line + "\n");
  intersperse =
    separator: list:
    lib.tail (
      builtins.concatMap (x: [
        separator
        x
      ]) list
    );

  optionalString = condition: text: if condition then text else "";
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      start = builtins.stringLength text - builtins.stringLength suffix;
    in
    start >= 0 && builtins.substring start (-1) text == suffix;
  hasInfix = infix: text: builtins.replaceStrings [ infix ] [ "" ] text != text || infix == "";
  removePrefix =
    prefix: text:
    if lib.hasPrefix prefix text then
      builtins.substring (builtins.stringLength prefix) (-1) text
    else
      text;
  removeSuffix =
    suffix: text:
    if lib.hasSuffix suffix text then
      builtins.substring 0 (builtins.stringLength text - builtins.stringLength suffix) text
    else
      text;

  stringToCharacters =
    text: builtins.genList (i: builtins.substring i 1 text) (builtins.stringLength text);
  stringAsChars = f: text: lib.concatMapStrings f (lib.stringToCharacters text);
  makeSearchPath =
    folder: roots:
    lib.concatMapStringsSep ":" (root: "${root}/${folder}") (lib.filter (root: root != null) roots);
  makeBinPath = packages: lib.makeSearchPath "bin" (map lib.getBin packages);
  splitString =
    separator: text:
    builtins.filter builtins.isString (
      builtins.split (lib.escapeRegex (builtins.unsafeDiscardStringContext separator)) (
        builtins.unsafeDiscardStringContext text
      )
    );
  toLower = builtins.replaceStrings upper lower;
  toUpper = builtins.replaceStrings lower upper;
  toSentenceCase =
    text:
    lib.toUpper (builtins.substring 0 1 text) + lib.toLower (builtins.substring 1 (-1) text);
  trim =
    text:
    let
      body = builtins.match "[ \t\n\r]*(.*[^ \t\n\r])[ \t\n\r]*" text;
    in
    if body == null then "" else builtins.head body;
  replicate = count: text: lib.concatStrings (lib.lists.replicate count text);
  fixedWidthString =
    width: filler: text:
    lib.strings.replicate (width - builtins.stringLength text) filler + text;
  fixedWidthNumber = width: n: lib.fixedWidthString width "0" (toString n);

  escape = chars: builtins.replaceStrings chars (map (c: "\\${c}") chars);
  escapeRegex = lib.escape (lib.stringToCharacters "\\[{()^$?*+|.");
  escapeNixString = text: lib.escape [ "$" ] (builtins.toJSON text);
  escapeNixIdentifier =
    text:
    if
      builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*" text != null
      && !(builtins.elem text [
        "assert"
        "else"
        "if"
        "in"
        "inherit"
        "let"
        "or"
        "rec"
        "then"
        "with"
      ])
    then
      text
    else
      lib.strings.escapeNixString text;
  escapeShellArg =
    arg:
    let
      text = toString arg;
    in
    if builtins.match "[[:alnum:],._+:@%/-]+" text != null then
      text
    else
      "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  escapeShellArgs = lib.concatMapStringsSep " " lib.escapeShellArg;
  escapeURL = throw "the stand-in lib has no escapeURL";

  toInt =
    text:
    let
      digits = builtins.match "[[:space:]]*(-?[[:digit:]]+)[[:space:]]*" text;
      zeroed = builtins.match "[[:space:]]*-?0[[:digit:]]+[[:space:]]*" text != null;
    in
    if digits == null then
      throw "toInt: Could not convert ${lib.strings.escapeNixString text} to int."
    else if zeroed then
      throw "toInt: Ambiguity in interpretation of ${lib.strings.escapeNixString text} between octal and zero padded integer."
    else
      builtins.fromJSON (builtins.head digits);
  toIntBase10 =
    text:
    let
      digits = builtins.match "[[:space:]]*0*(-?[[:digit:]]+)[[:space:]]*" text;
    in
    if digits == null then
      throw "toIntBase10: Could not convert ${lib.strings.escapeNixString text} to int."
    else
      builtins.fromJSON (builtins.head digits);

  fileContents = path: lib.removeSuffix "\n" (builtins.readFile path);
  isStringLike = x: builtins.isString x || builtins.isPath x || x ? outPath || x ? __toString;
  isConvertibleWithToString =
    x:
    lib.isStringLike x
    || x == null
    || builtins.isInt x
    || builtins.isFloat x
    || builtins.isBool x
    || (builtins.isList x && builtins.all lib.strings.isConvertibleWithToString x);
  isStorePath =
    x:
    lib.isStringLike x
    && builtins.substring 0 1 (toString x) == "/"
    && builtins.dirOf (toString x) == builtins.storeDir;
  versionOlder = a: b: builtins.compareVersions b a == 1;
  versionAtLeast = a: b: !(lib.versionOlder a b);

  # The edit distance, one row of the table after the other.
  levenshtein =
    a: b:
    let
      columns = lib.stringToCharacters b;
      nextRow =
        above: letter:
        let
          corner = builtins.head above + 1;
          step =
            row: i:
            let
              change = if builtins.elemAt columns i == letter then 0 else 1;
              best = lib.min (lib.last row + 1) (
                lib.min (builtins.elemAt above (i + 1) + 1) (builtins.elemAt above i + change)
              );
            in
            row ++ [ best ];
        in
        builtins.foldl' step [ corner ] (lib.range 0 (builtins.length columns - 1));
    in
    lib.last (
      builtins.foldl' nextRow (lib.range 0 (builtins.length columns)) (lib.stringToCharacters a)
    );
}
