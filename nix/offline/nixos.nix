/*
  lib.nixosSystem over a small part of NixOS' options. What is computed from
  them (units, files below /etc, a daemon's settings) can be read from config;
  nothing of it can be built.
*/
{ lib }:
{
  modules ? [ ],
  specialArgs ? { },
  system ? null,
  ...
}:
let
  evaluated = lib.evalModules {
    class = "nixos";
    specialArgs = {
      modulesPath = toString ./nixos;
    }
    // specialArgs;
    modules = [
      ./nixos/assertions.nix
      ./nixos/bird.nix
      ./nixos/boot.nix
      ./nixos/environment.nix
      ./nixos/frr.nix
      ./nixos/gobgpd.nix
      ./nixos/machine.nix
      ./nixos/network.nix
      ./nixos/nixpkgs.nix
      ./nixos/systemd.nix
      ./nixos/untyped.nix
      { nixpkgs.hostPlatform = lib.mkIf (system != null) (lib.mkDefault system); }
    ]
    ++ modules;
  };
in
evaluated
// {
  inherit (evaluated._module.args) pkgs;
  inherit lib;
}
