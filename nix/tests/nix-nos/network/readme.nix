/*
  The examples of nix-nos' README.md, each evaluated: what a machine is told by
  it, and which lines about the library do not hold.
*/
{ lib }:
let
  text = builtins.readFile ../../../nix-nos/README.md;
  # [ { kind; code; } ] of the blocks that begin with ```nix KIND.
  blocks = map (
    part:
    let
      found = builtins.match "([a-z]+)\n(.*)" part;
    in
    {
      kind = lib.head found;
      code = lib.last found;
    }
  ) (map (part: lib.head (lib.splitString "\n```" part)) (lib.tail (lib.splitString "```nix " text)));
  of = kind: map (block: block.code) (lib.filter (block: block.kind == kind) blocks);
  # What it says nothing of: how the machine boots.
  boots = "{ boot.isContainer = true; }";
  value =
    code:
    import (
      builtins.toFile "example.nix" (builtins.replaceStrings [ "./configuration.nix" ] [ boots ] code)
    );

  nixpkgs.lib = lib // {
    nixosSystem = import ../../../offline/nixos.nix { inherit lib; };
  };
  nix-nos = (import ../../../nix-nos/flake.nix).outputs {
    inherit nixpkgs;
    self = nix-nos;
  };

  summary = config: {
    failures = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
    inherit (config) warnings;
    peers = lib.attrNames config.nix-nos.bgp.peers;
    files = lib.attrNames config.environment.etc;
  };
  machine =
    modules:
    summary
      (nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        inherit modules;
      }).config;
in
{
  flakes = map (
    code:
    lib.mapAttrs (_: system: summary system.config)
      ((value code).outputs { inherit nixpkgs nix-nos; }).nixosConfigurations
  ) (of "flake");
  modules = map (
    code:
    machine [
      nix-nos.nixosModules.default
      (value code)
      (value boots)
    ]
  ) (of "module");
  # Each part by itself has all that it needs.
  alone = lib.mapAttrs (
    _: module: lib.attrNames ((nixpkgs.lib.nixosSystem { modules = [ module ]; }).config.nix-nos)
  ) nix-nos.nixosModules;
  untrue = lib.filter (line: value "{ lib }: ${line}" { inherit (nix-nos) lib; } != true) (
    lib.concatMap (lib.splitString "\n") (of "lib")
  );
}
