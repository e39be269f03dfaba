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
      frr."frr.conf" = etc "frr/frr.conf";
    }
    .${backend};
}
