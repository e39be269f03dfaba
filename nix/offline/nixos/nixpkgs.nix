{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.nixpkgs;
in
{
  options.nixpkgs = {
    hostPlatform = mkOption {
      type = types.either types.str types.attrs;
      default = "x86_64-linux";
      description = "What the machine runs on.";
    };
    overlays = mkOption {
      type = types.listOf types.raw;
      default = [ ];
      description = "Changes to the package set, final: prev: { }.";
    };
    config = mkOption {
      type = types.attrs;
      default = { };
      description = "Settings of the package set; nothing here depends on them.";
    };
    pkgs = mkOption {
      type = types.raw;
      default = import ../pkgs.nix {
        inherit lib;
        inherit (cfg) overlays;
        system = cfg.hostPlatform.system or cfg.hostPlatform;
      };
      description = "The package set.";
    };
  };

  config._module.args.pkgs = cfg.pkgs;
}
