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
          # The system is made of these, so that a mistake in them is one here, too.
          files = lib.mapAttrsToList (_: file: "${file.source}") (
            lib.filterAttrs (_: file: file.enable) config.environment.etc
          );
          units = lib.mapAttrsToList (_: unit: unit.serviceConfig) config.systemd.services;
          inherit (import ../unbuildable.nix { inherit name; }) drvPath;
        in
        builtins.deepSeq [
          files
          units
        ]
        {
          type = "derivation";
          inherit name drvPath;
          outPath = drvPath;
        }
      ) config.warnings;
}
