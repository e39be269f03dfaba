# The functions that modules use along with the module system.
{ lib }:
let
  inherit (lib) types;
in
{
  descriptions = map (t: t.description) [
    types.int
    types.port
    (types.ints.between 1 9)
    (types.listOf (types.either types.int types.str))
    (types.attrsOf (types.nullOr types.bool))
    (types.nullOr (types.listOf types.str))
    (types.either types.ints.positive (types.listOf types.lines))
    (types.enum [
      "a"
      2
    ])
    (types.enum [ "a" ])
    (types.coercedTo types.str (x: x) (types.listOf types.str))
    (types.strMatching "a+")
    (types.functionTo types.int)
    (types.submodule { })
    (types.listOf (types.submodule { }))
    (types.nonEmptyListOf types.str)
    types.path
    types.package
    types.singleLineStr
  ];
  strings = {
    infix = map (x: lib.hasInfix x "abc") [
      "b"
      "d"
    ];
    suffix = map (x: lib.hasSuffix x "abc") [
      "bc"
      "abcd"
      ""
    ];
    prefix = lib.removePrefix "a" "abc";
    split = lib.splitString "." "a.b..c";
    shell = lib.escapeShellArgs [
      "a b"
      "it's"
      "plain-1.2"
      ""
    ];
    identifiers = map lib.strings.escapeNixIdentifier [
      "a"
      "a-b"
      "1a"
      "if"
      "a.b"
    ];
    option = lib.showOption [
      "a"
      "b.c"
      "*"
      "<name>"
    ];
    width = lib.fixedWidthString 5 "0" "42";
    numbers = map lib.toInt [
      "42"
      "-7"
      " 3 "
    ];
    case = lib.toLower "ABC" + lib.toUpper "def";
    lines = lib.concatLines [
      "a"
      "b"
    ];
    near = [
      (lib.strings.levenshtein "kitten" "sitting")
      (lib.strings.levenshtein "" "abc")
      (lib.strings.levenshtein "vips" "vip")
    ];
    trim = lib.trim "  a b\n";
  };
  lists = {
    unique = lib.unique [
      3
      1
      3
      2
      1
    ];
    flatten = lib.flatten [
      1
      [
        2
        [ 3 ]
      ]
    ];
    slices = [
      (lib.take 2 [
        1
        2
        3
      ])
      (lib.drop 2 [
        1
        2
        3
      ])
      (lib.sublist 1 5 [
        1
        2
        3
      ])
      (lib.init [
        1
        2
      ])
    ];
    folds = [
      (lib.foldr (x: acc: x + acc) "!" [
        "a"
        "b"
      ])
      (lib.foldl (acc: x: acc + x) "!" [
        "a"
        "b"
      ])
    ];
    zip = lib.zipListsWith (a: b: a + b) [ 1 2 ] [ 3 4 5 ];
    found = lib.findFirst (x: x > 1) null [
      1
      2
      3
    ];
    sorted = lib.sortOn (x: 0 - x) [
      1
      3
      2
    ];
    numbered = lib.imap1 (i: x: "${toString i}${x}") [
      "a"
      "b"
    ];
    range = lib.range 2 4;
  };
  attrsets = {
    recursive = lib.recursiveUpdate {
      a.b = 1;
      c = 2;
    } { a.d = 3; };
    renamed = lib.mapAttrs' (n: v: lib.nameValuePair "x${n}" (v + 1)) { a = 1; };
    filtered = lib.filterAttrs (_: v: v > 1) {
      a = 1;
      b = 2;
    };
    path = lib.attrByPath [ "a" "b" ] 0 { a.b = 1; };
    product = lib.cartesianProduct {
      a = [
        1
        2
      ];
      b = [ 3 ];
    };
    merged = lib.mergeAttrsList [
      { a = 1; }
      { b = 2; }
      { a = 3; }
    ];
    collected = lib.collect builtins.isInt {
      a.b = 1;
      c = 2;
    };
    generated = lib.genAttrs [
      "a"
      "b"
    ] (n: n + n);
  };
  pretty = lib.generators.toPretty { } {
    a = 1;
    "b c" = [
      true
      null
      { }
      [ ]
      1.5
      "x\"\${y}"
      ''
        two
        lines''
    ];
    f = { x, y ? 1 }: x;
    g = x: x;
  };
  keyValue = lib.generators.toKeyValue { } {
    a = 1;
    b = true;
    c = "x=y";
  };
}
