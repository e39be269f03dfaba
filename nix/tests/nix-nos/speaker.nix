/*
  A machine that uses nix-nos alone, with the description in `module`: what the
  chosen daemon gets to read.
*/
{
  lib,
  module,
  backend,
}:
let
  inherit
    (import ../../offline/nixos.nix { inherit lib; } {
      system = "x86_64-linux";
      modules = [
        ../../nix-nos/modules/bgp
        module
        {
          boot.isContainer = true;
          nix-nos.bgp = {
            enable = true;
            backend = lib.mkDefault backend;
          };
        }
      ];
    })
    config
    ;
  etc = name: builtins.readFile config.environment.etc.${name}.source;
in
{
  failures = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  files =
    {
      gobgp = {
        "gobgpd.toml" = etc "nix-nos/gobgpd.toml";
        announcements = etc "nix-nos/gobgp-announcements";
      };
      bird."bird.conf" = etc "bird/bird.conf";
      # With passwords, what the daemon reads is made on the machine.
      frr."frr.conf" = etc (
        if config.services.frr.configFile == null then "frr/frr.conf" else "nix-nos/frr.conf"
      );
    }
    .${backend};

  # What of the units is not as nixpkgs has it.
  unit =
    let
      name = if backend == "gobgp" then "gobgpd" else backend;
      unit = config.systemd.services.${name};
      plain = text: lib.concatStrings (lib.filter lib.isString (builtins.split "/nix/store/[0-9a-z]{32}-" text));
      scripts = lib.filter (lib.hasInfix "/nix/store/") (
        lib.concatMap (key: lib.toList unit.serviceConfig.${key} or [ ]) [
          "ExecStartPre"
          "ExecStart"
          "ExecReload"
        ]
      );
      script =
        line:
        let
          path = lib.removePrefix "+" line;
        in
        # A script that was written here, and no program.
        lib.optional (builtins.match "/nix/store/[^/ ]*" path != null) (
          builtins.replaceStrings
            [ (builtins.readFile ../../nix-nos/modules/bgp/render-passwords.sh) ]
            [ "# and then render-passwords.sh" ]
            (builtins.readFile path)
        );
    in
    {
      "${name}.service" = plain (
        builtins.toJSON {
          inherit (unit) environment;
          serviceConfig = lib.filterAttrs (key: _: lib.hasPrefix "Exec" key || key == "RuntimeDirectory") unit.serviceConfig;
          # What it is restarted for, where other changes reload it.
          restarts = lib.optionals (backend == "frr") (map builtins.readFile unit.restartTriggers);
          firewall = { inherit (config.networking.firewall) allowedTCPPorts allowedUDPPorts; };
        }
        + "\n"
        + lib.concatStringsSep "\n" (lib.unique (lib.concatMap script scripts))
      );
    };
}
