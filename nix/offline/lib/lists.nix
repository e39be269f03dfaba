{ lib }:
{
  inherit (builtins)
    all
    any
    concatLists
    concatMap
    elem
    elemAt
    filter
    foldl'
    genList
    groupBy
    head
    isList
    length
    map
    partition
    sort
    tail
    ;

  singleton = x: [ x ];
  toList = x: if builtins.isList x then x else [ x ];
  optional = condition: x: if condition then [ x ] else [ ];
  optionals = condition: list: if condition then list else [ ];

  foldl =
    f: start: list:
    let
      go = i: if i < 0 then start else f (go (i - 1)) (builtins.elemAt list i);
    in
    go (builtins.length list - 1);
  foldr =
    f: end: list:
    let
      count = builtins.length list;
      go = i: if i == count then end else f (builtins.elemAt list i) (go (i + 1));
    in
    go 0;
  fold = lib.foldr;

  imap0 = f: list: builtins.genList (i: f i (builtins.elemAt list i)) (builtins.length list);
  imap1 = f: lib.imap0 (i: f (i + 1));

  last =
    list:
    lib.throwIf (
      list == [ ]
    ) "lists.last: list must not be empty!" builtins.elemAt list (builtins.length list - 1);
  init =
    list:
    lib.throwIf (list == [ ]) "lists.init: list must not be empty!" lib.take (
      builtins.length list - 1
    ) list;
  take = count: lib.sublist 0 count;
  drop = count: list: lib.sublist count (builtins.length list) list;
  sublist =
    start: count: list:
    let
      left = builtins.length list - start;
    in
    builtins.genList (i: builtins.elemAt list (start + i)) (
      if left <= 0 then 0 else lib.min left count
    );

  remove = x: builtins.filter (y: y != x);
  subtractLists = gone: builtins.filter (x: !(builtins.elem x gone));
  intersectLists = kept: builtins.filter (x: builtins.elem x kept);
  mutuallyExclusive = a: b: !(builtins.any (x: builtins.elem x b) a);
  unique = builtins.foldl' (seen: x: if builtins.elem x seen then seen else seen ++ [ x ]) [ ];
  allUnique = list: builtins.length (lib.unique list) == builtins.length list;
  uniqueStrings = list: builtins.attrNames (builtins.groupBy (x: x) list);

  flatten = x: if builtins.isList x then builtins.concatMap lib.flatten x else [ x ];
  reverseList =
    list:
    let
      count = builtins.length list;
    in
    builtins.genList (i: builtins.elemAt list (count - i - 1)) count;
  range = first: last: if first > last then [ ] else builtins.genList (i: first + i) (last - first + 1);
  replicate = count: x: builtins.genList (_: x) count;
  count = predicate: builtins.foldl' (n: x: if predicate x then n + 1 else n) 0;

  findFirst =
    predicate: fallback: list:
    let
      hits = builtins.filter predicate list;
    in
    if hits == [ ] then fallback else builtins.head hits;
  findSingle =
    predicate: none: several: list:
    let
      hits = builtins.filter predicate list;
    in
    if hits == [ ] then
      none
    else if builtins.length hits == 1 then
      builtins.head hits
    else
      several;

  zipListsWith =
    f: a: b:
    builtins.genList (i: f (builtins.elemAt a i) (builtins.elemAt b i)) (
      lib.min (builtins.length a) (builtins.length b)
    );
  zipLists = lib.zipListsWith (fst: snd: { inherit fst snd; });
  crossLists = f: builtins.foldl' (fs: args: builtins.concatMap (f: map f args) fs) [ f ];

  sortOn =
    key: list:
    map (pair: pair.item) (
      builtins.sort (a: b: a.key < b.key) (
        map (item: {
          inherit item;
          key = key item;
        }) list
      )
    );
  naturalSort = builtins.sort (a: b: builtins.compareVersions a b < 0);
  listToAttrs = builtins.listToAttrs;
}
