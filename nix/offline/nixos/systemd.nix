{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;

  inherit (import ./unit-value.nix { inherit lib; }) value;
  section =
    description:
    mkOption {
      type = types.attrsOf value;
      default = { };
      inherit description;
    };
  units =
    description:
    mkOption {
      type = types.listOf (types.strMatching "[a-zA-Z0-9@%:_.\\-]+[.](service|socket|device|mount|automount|swap|target|path|timer|scope|slice)");
      default = [ ];
      inherit description;
    };
  flag =
    default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
  shell =
    description:
    mkOption {
      type = types.lines;
      default = "";
      inherit description;
    };
  triggers =
    description:
    mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      inherit description;
    };

  service =
    { name, config, ... }:
    let
      run = what: text: "${pkgs.writeShellScript "unit-script-${name}-${what}" "set -e\n${text}"}";
    in
    {
      options = {
        enable = flag true "Whether the unit can be started.";
        description = mkOption {
          type = types.singleLineStr;
          default = "";
          description = "What the unit is.";
        };
        documentation = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Where to read about it.";
        };
        wantedBy = units "Units that want it.";
        requiredBy = units "Units that require it.";
        wants = units "Units that it wants.";
        requires = units "Units that it requires.";
        bindsTo = units "Units that it stops with.";
        partOf = units "Units that it restarts with.";
        conflicts = units "Units that it cannot run beside.";
        after = units "Units that it starts after.";
        before = units "Units that it starts before.";
        path = mkOption {
          type = types.listOf (types.either types.package types.str);
          default = [ ];
          description = "Packages in its PATH.";
        };
        environment = mkOption {
          type = types.attrsOf (
            types.nullOr (
              types.oneOf [
                types.str
                types.path
                types.package
              ]
            )
          );
          default = { };
          description = "Its environment.";
        };
        unitConfig = section "Its section [Unit].";
        serviceConfig = section "Its section [Service].";
        startLimitIntervalSec = mkOption {
          type = types.nullOr types.int;
          default = null;
          description = "The interval of startLimitBurst.";
        };
        startLimitBurst = mkOption {
          type = types.nullOr types.int;
          default = null;
          description = "How often it may start in that interval.";
        };
        script = shell "Shell commands, as its main process.";
        preStart = shell "Shell commands before it starts.";
        postStart = shell "Shell commands after it started.";
        reload = shell "Shell commands that reload it.";
        preStop = shell "Shell commands that stop it.";
        postStop = shell "Shell commands after it stopped.";
        restartIfChanged = flag true "Whether a change restarts it.";
        reloadIfChanged = flag false "Whether a change reloads it instead.";
        stopIfChanged = flag true "Whether a restart is a stop and a start.";
        restartTriggers = triggers "It restarts when one of these changes.";
        reloadTriggers = triggers "It reloads when one of these changes.";
      };
      config.serviceConfig = {
        ExecStart = lib.mkIf (config.script != "") (run "start" config.script);
        ExecStartPre = lib.mkIf (config.preStart != "") [ (run "pre-start" config.preStart) ];
        ExecReload = lib.mkIf (config.reload != "") (run "reload" config.reload);
        ExecStop = lib.mkIf (config.preStop != "") (run "pre-stop" config.preStop);
      };
    };
in
{
  options.systemd = {
    services = mkOption {
      type = types.attrsOf (types.submodule service);
      default = { };
      description = "Service units.";
    };
    tmpfiles.rules = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Lines for tmpfiles.d(5).";
    };
  };

  config.assertions = lib.mapAttrsToList (name: s: {
    assertion = !(s.serviceConfig ? ExecStart) || s.serviceConfig.Type or "" == "oneshot" || !(builtins.isList s.serviceConfig.ExecStart) || lib.length s.serviceConfig.ExecStart == 1;
    message = "systemd.services.${name}: more than one ExecStart goes only with Type = \"oneshot\".";
  }) config.systemd.services;
}
