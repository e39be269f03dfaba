# services.gobgpd, with the unit that nixpkgs gives it: what overrides a line of
# that unit must meet the line here too.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  cfg = config.services.gobgpd;
  toml = pkgs.formats.toml { };
  file = toml.generate "gobgpd.conf" cfg.settings;
in
{
  options.services.gobgpd = {
    enable = lib.mkEnableOption "GoBGP Routing Daemon";
    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      description = "The configuration of gobgpd.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ pkgs.gobgpd ];
    systemd.services.gobgpd = {
      description = "GoBGP Routing Daemon";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = {
        Type = "notify";
        ExecStartPre = "${pkgs.gobgpd}/bin/gobgpd -f ${file} -d";
        ExecStart = "${pkgs.gobgpd}/bin/gobgpd -f ${file} --sdnotify";
        ExecReload = "${pkgs.gobgpd}/bin/gobgpd -r";
        DynamicUser = true;
        AmbientCapabilities = "cap_net_bind_service";
      };
    };
  };
}
