{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  failed = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
in
{
  options = {
    assertions = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Conditions that must hold for the system to be built.";
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Messages shown while the system is evaluated.";
    };
    system = {
      build = mkOption {
        type = types.lazyAttrsOf types.unspecified;
        default = { };
        description = "What can be built of the system.";
      };
      stateVersion = mkOption {
        type = types.str;
        default = "26.05";
        description = "The release that the machine was installed with.";
      };
    };
  };

  config.system.build.toplevel =
    if failed != [ ] then
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failed}"
    else
      lib.foldr lib.warn (
        let
          name = "nixos-system-${config.networking.hostName}-offline";
          inherit (import ../unbuildable.nix { inherit name; }) drvPath;
        in
        {
          type = "derivation";
          inherit name drvPath;
          outPath = drvPath;
        }
      ) config.warnings;
}
