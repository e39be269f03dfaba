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
  networks = wrong (
    text:
    let
      prefix = ip.parsePrefix text;
    in
    [
      (ip.network prefix).text
      (ip.host prefix 0)
      (ip.host prefix 1)
      (ip.last prefix)
    ]
  ) cases.networks;
  contains = map (row: lib.head row) (
    lib.filter (
      row:
      let
        other = lib.elemAt row 1;
        parsed = if ip.isAddress other then ip.parse other else ip.parsePrefix other;
      in
      ip.contains (ip.parsePrefix (lib.head row)) parsed != lib.elemAt row 2
    ) cases.contains
  );
}
