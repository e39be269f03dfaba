/*
  The evaluation tests as a check of the flake, with the lib that comes with pkgs:
  a derivation, which exists only where the goldens are met and every wrong cluster
  is refused. nix/tests/run compares more, and on several versions of Nix: what the
  daemons read, and what the module system says of a mistake.
*/
{ pkgs }:
let
  inherit (pkgs) lib;
  libPath = pkgs.path + "/lib";

  goldens = import ./goldens.nix { inherit libPath; };
  recorded =
    name: builtins.readFile (if lib.hasPrefix "options/" name then ../../docs + "/${name}" else ./. + "/${name}");
  # The others read files that an evaluation writes, which a pure one may not.
  values = lib.filter (name: !(lib.hasPrefix "nix-nos/" name || name == "nodes.json" || name == "iso.json")) (
    lib.attrNames goldens
  );
  different = lib.filter (name: goldens.${name} != recorded name) values;

  accepted = lib.filter (
    name:
    let
      made = import ../lib/mk-cluster.nix {
        inherit lib;
        nixosModule = { };
      } { modules = [ (./bad + "/${name}.nix") ]; };
      # What the module system refuses it throws, and a thrown message is lost.
      tried = builtins.tryEval (
        let
          manifest = lib.head (lib.attrValues made.plasmacloud);
        in
        builtins.deepSeq manifest manifest.failedAssertions
      );
      wanted = lib.filter (line: line != "") (
        lib.splitString "\n" (builtins.readFile (./bad + "/${name}.txt"))
      );
    in
    tried.success && !(lib.all (line: lib.hasInfix line (lib.concatLines tried.value)) wanted)
  ) (map (lib.removeSuffix ".nix") (lib.filter (lib.hasSuffix ".nix") (lib.attrNames (builtins.readDir ./bad))));
in
lib.throwIf (different != [ ]) "not as recorded, see `make update-golden`: ${toString different}" (
  lib.throwIf (accepted != [ ]) "not refused with the recorded message: ${toString accepted}" (
    pkgs.runCommand "plasmacloud-evaluation-tests" { } "touch $out"
  )
)
