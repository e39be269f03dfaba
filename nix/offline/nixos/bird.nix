# services.bird, as far as a configuration is rendered by it.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.bird;
  flag =
    description:
    mkOption {
      type = types.bool;
      default = true;
      inherit description;
    };
in
{
  options.services.bird = {
    enable = lib.mkEnableOption "BIRD Internet Routing Daemon";
    package = mkOption {
      type = types.package;
      default = pkgs.bird3;
      description = "Where BIRD comes from.";
    };
    config = mkOption {
      type = types.lines;
      description = "The configuration of BIRD.";
    };
    autoReload = flag "Whether a changed configuration reloads the unit.";
    checkConfig = flag "Whether BIRD checks the configuration when the system is built.";
    preCheckConfig = mkOption {
      type = types.lines;
      default = "";
      description = "Shell commands before that check.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."bird/bird.conf".source = pkgs.writeText "bird.conf" cfg.config;
    systemd.services.bird = {
      description = "BIRD Internet Routing Daemon";
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = lib.optional cfg.autoReload config.environment.etc."bird/bird.conf".source;
      serviceConfig = {
        Type = "forking";
        Restart = "on-failure";
        User = "bird";
        Group = "bird";
        ExecStart = "${cfg.package}/bin/bird -c /etc/bird/bird.conf";
        ExecReload = "${cfg.package}/bin/birdc configure";
        ExecStop = "${cfg.package}/bin/birdc down";
        RuntimeDirectory = "bird";
      };
    };
  };
}
