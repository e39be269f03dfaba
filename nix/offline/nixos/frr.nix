# services.frr, as far as a configuration is rendered by it.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.frr;
  strings =
    description:
    mkOption {
      type = types.listOf types.str;
      default = [ ];
      inherit description;
    };
  daemon = name: {
    enable = lib.mkEnableOption "FRR's ${name}";
    extraOptions = strings "More arguments of ${name}.";
  };
in
{
  options.services.frr = {
    configFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "A file to take in place of what config says.";
    };
    config = mkOption {
      type = types.lines;
      default = "";
      description = "The configuration of all of FRR's daemons.";
    };
    bgpd = daemon "bgpd";
    bfdd = daemon "bfdd";
  };

  config = lib.mkIf (cfg.bgpd.enable || cfg.bfdd.enable) {
    environment.systemPackages = [ pkgs.frr ];
    environment.etc."frr/frr.conf".source =
      if cfg.configFile != null then
        cfg.configFile
      else
        pkgs.writeText "frr.conf" ''
          hostname ${config.networking.hostName}
          log syslog
          service password-encryption
          service integrated-vtysh-config
          !
          ${cfg.config}
          !
          end
        '';
    # Which daemons frrinit.sh starts, with what arguments.
    environment.etc."frr/daemons".text = lib.concatMapStrings (name: ''
      ${name}=${if cfg.${name}.enable then "yes" else "no"}
      ${name}_options="${lib.concatStringsSep " " ([ "-A 127.0.0.1" ] ++ cfg.${name}.extraOptions)}"
    '') [ "bgpd" "bfdd" ];
    systemd.services.frr = {
      description = "FRRouting";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network.target" ];
      reloadIfChanged = true;
      restartTriggers = [ config.environment.etc."frr/frr.conf".source ];
      serviceConfig = {
        Type = "forking";
        Restart = "always";
        PIDFile = "/run/frr/watchfrr.pid";
        ExecStart = "${pkgs.frr}/libexec/frr/frrinit.sh start";
        ExecReload = "${pkgs.frr}/libexec/frr/frrinit.sh reload";
        ExecStop = "${pkgs.frr}/libexec/frr/frrinit.sh stop";
      };
    };
  };
}
