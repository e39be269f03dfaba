/*
  A service of a machine's configuration, as a file that systemd reads. NixOS writes
  it with more around it (PATH, locale), but with these lines.
*/
{ lib }:
let
  # Packages have another hash in every build.
  withoutHash =
    text:
    lib.concatStringsSep "/nix/store/" (
      lib.filter builtins.isString (builtins.split "/nix/store/[0-9a-z]{32}-" text)
    );
  value =
    v: if builtins.isBool v then (if v then "true" else "false") else withoutHash (toString v);
  section =
    name: settings:
    "[${name}]\n"
    + lib.concatStrings (
      lib.concatLists (
        lib.mapAttrsToList (key: v: map (one: "${key}=${value one}\n") (lib.toList v)) settings
      )
    );
  units = key: names: lib.optionalAttrs (names != [ ]) { ${key} = lib.concatStringsSep " " names; };
in
s:
section "Unit" (
  {
    Description = s.description;
  }
  // lib.optionalAttrs (s.documentation != [ ]) {
    Documentation = lib.concatStringsSep " " s.documentation;
  }
  // units "After" s.after
  // units "Before" s.before
  // units "BindsTo" s.bindsTo
  // units "PartOf" s.partOf
  // units "Requires" s.requires
  // units "Wants" s.wants
  // lib.optionalAttrs (s.startLimitIntervalSec != null) {
    StartLimitIntervalSec = s.startLimitIntervalSec;
  }
  // s.unitConfig
)
+ "\n"
+ section "Service" (
  lib.optionalAttrs (s.environment != { }) {
    Environment = lib.mapAttrsToList (name: v: "${name}=${v}") s.environment;
  }
  // s.serviceConfig
)
+ lib.optionalString (s.wantedBy != [ ]) "\n${section "Install" (units "WantedBy" s.wantedBy)}"
