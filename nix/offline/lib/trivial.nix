{ lib }:
{
  id = x: x;
  const = x: _: x;
  flip =
    f: a: b:
    f b a;
  pipe = builtins.foldl' (x: f: f x);
  and = a: b: a && b;
  or = a: b: a || b;
  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;
  mod = a: b: a - b * (a / b);

  inherit (builtins)
    add
    sub
    lessThan
    seq
    deepSeq
    genericClosure
    addErrorContext
    bitAnd
    bitOr
    bitXor
    isBool
    isInt
    isFloat
    isPath
    typeOf
    trace
    tryEval
    readFile
    fromJSON
    toJSON
    pathExists
    unsafeGetAttrPos
    ;

  importJSON = path: builtins.fromJSON (builtins.readFile path);
  importTOML = path: builtins.fromTOML (builtins.readFile path);

  isFunction = f: builtins.isFunction f || (f ? __functor && lib.isFunction (f.__functor f));
  functionArgs =
    f:
    if f ? __functor then
      f.__functionArgs or (lib.functionArgs (f.__functor f))
    else
      builtins.functionArgs f;
  setFunctionArgs = f: args: {
    __functor = _: f;
    __functionArgs = args;
  };
  toFunction = v: if lib.isFunction v then v else _: v;

  boolToString = b: if b then "true" else "false";

  warn = message: builtins.trace "evaluation warning: ${message}";
  warnIf = condition: message: if condition then lib.warn message else x: x;
  warnIfNot = condition: lib.warnIf (!condition);
  throwIf = condition: message: if condition then throw message else x: x;
  throwIfNot = condition: lib.throwIf (!condition);
  assertMsg = condition: message: condition || throw message;

  fix =
    f:
    let
      x = f x;
    in
    x;
  extends =
    overlay: f: final:
    let
      prev = f final;
    in
    prev // overlay final prev;
  composeExtensions =
    f: g: final: prev:
    let
      first = f final prev;
    in
    first // g final (prev // first);
  composeManyExtensions = lib.foldr lib.composeExtensions (_: _: { });

  toHexString =
    n:
    let
      digits = lib.stringToCharacters "0123456789ABCDEF";
      go = n: (if n < 16 then "" else go (n / 16)) + builtins.elemAt digits (lib.mod n 16);
    in
    go n;
  fromHexString =
    text:
    (builtins.fromTOML "n = 0x${
      if lib.hasPrefix "0x" text || lib.hasPrefix "0X" text then
        builtins.substring 2 (-1) text
      else
        text
    }").n;
}
