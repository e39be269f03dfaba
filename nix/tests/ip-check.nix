# The rows of ip.nix that do not hold: none.
{ lib }:
let
  ip = import ../nix-nos/lib/ip.nix;
  cases = import ./ip.nix;
  wrong =
    f: rows:
    lib.filter (row: row.found != row.expected) (
      map (row: rec {
        given = lib.head row;
        expected = lib.tail row;
        found = f given;
      }) rows
    );
  orNull = key: v: if v == null then null else v.${key};
in
{
  addresses = wrong (text: [ (ip.canonical text) ]) cases.addresses;
  prefixes = wrong (
    text:
    let
      prefix = ip.parsePrefix text;
    in
    [
      (ip.canonicalPrefix text)
      (if prefix == null then null else ip.isNetwork prefix)
    ]
  ) cases.prefixes;
  hosts = wrong (text: [ (orNull "prefix" (ip.parseHost text)) ]) cases.hosts;
  global = wrong (text: [ (ip.isGlobal text) ]) cases.global;
  unicast = wrong (text: [ (ip.isUnicast text) ]) cases.unicast;
}
