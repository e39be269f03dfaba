# How definitions of one option become its value.
{ lib }:
let
  inherit (lib) mkOption types;
  value =
    type: defs:
    (lib.evalModules {
      modules = [ { options.x = mkOption { inherit type; }; } ] ++ map (x: { inherit x; }) defs;
    }).config.x;
in
{
  list = value (types.listOf types.int) [
    [ 1 ]
    (lib.mkAfter [ 2 ])
    (lib.mkBefore [ 3 ])
    (lib.mkOrder 600 [ 4 ])
    [ 5 ]
    (lib.mkIf false [ 6 ])
    (lib.mkMerge [
      [ 7 ]
      (lib.mkBefore [ 8 ])
    ])
  ];
  listItems = value (types.listOf types.int) [
    [
      1
      (lib.mkIf false 2)
      (lib.mkIf true 3)
    ]
  ];
  listEmpty = value (types.listOf types.int) [ ];
  priority = value types.str [
    (lib.mkDefault "default")
    "normal"
    (lib.mkForce "force")
    (lib.mkOverride 60 "image")
  ];
  nestedPriority = value (types.attrsOf types.str) [
    (lib.mkDefault { a = "1"; })
    { b = lib.mkDefault "2"; }
    {
      b = "3";
      c = lib.mkIf false "4";
    }
  ];
  lines = value types.lines [
    "a"
    (lib.mkBefore "b")
    "c\n"
  ];
  attrsOfList = value (types.attrsOf (types.listOf types.str)) [
    { a = [ "1" ]; }
    { a = lib.mkForce [ "2" ]; }
    { b = [ ]; }
  ];
  lazyAttrs = value (types.lazyAttrsOf (types.nullOr types.str)) [
    {
      a = lib.mkIf false "x";
      b = "y";
    }
  ];
  anything = value types.anything [
    {
      a.b = 1;
      l = [ 1 ];
    }
    { a.c = lib.mkDefault 2; }
    (lib.mkIf true { a.c = 3; })
  ];
  attrs = value types.attrs [
    { a = 1; }
    {
      a = 2;
      b = 3;
    }
  ];
  unspecified = value types.unspecified [
    [ 1 ]
    [ 2 ]
  ];
  either = value (types.either types.int (types.listOf types.int)) [
    [ 1 ]
    [ 2 ]
  ];
  oneOf =
    map
      (
        x:
        value (types.oneOf [
          types.bool
          types.int
          (types.attrsOf types.str)
        ]) [ x ]
      )
      [
        true
        3
        { a = "b"; }
      ];
  coerced = value (types.listOf (types.coercedTo types.int toString types.str)) [
    [
      1
      "2"
    ]
  ];
  coercedWhole = value (types.coercedTo types.str (x: [ x ]) (types.listOf types.str)) [
    "a"
    [ "b" ]
  ];
  nullOr = map (value (types.nullOr types.int)) [
    [ ]
    [ null ]
    [ 1 ]
  ];
  enum = value (types.enum [
    "a"
    1
    null
  ]) [ null ];
  boolByOr = value types.boolByOr [
    false
    true
  ];
  singleLine = value types.singleLineStr [ "a\n" ];
  functionTo = value (types.functionTo (types.listOf types.int)) [
    (n: [ n ])
    (n: [ (n + 1) ])
  ] 5;
  unique = value (types.uniq types.int) [ 1 ];
  ints = map (type: value type [ 0 ]) [
    types.ints.u8
    types.ints.u16
    types.ints.u32
    types.ints.s8
    types.ints.unsigned
    types.port
    (types.ints.between 0 3)
  ];
  nonEmptyList = value (types.nonEmptyListOf types.int) [ [ 1 ] ];
}
