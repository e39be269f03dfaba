/*
  A machine that uses nix-nos alone, with the description in `module`: the
  files that systemd-networkd and udev get to read.
*/
{ lib, module }:
let
  inherit
    (import ../../../offline/nixos.nix { inherit lib; } {
      system = "x86_64-linux";
      modules = [
        ../../../nix-nos/modules
        module
        { boot.isContainer = true; }
      ];
    })
    config
    ;
  prefix = "systemd/network";
in
{
  inherit config;
  failures = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  # { "10-eth0.network" = text; }
  files = lib.mapAttrs' (
    name: file: lib.nameValuePair (baseNameOf name) (builtins.readFile file.source)
  ) (lib.filterAttrs (name: _: lib.hasPrefix prefix name) config.environment.etc);
}
