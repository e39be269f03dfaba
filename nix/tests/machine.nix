/*
  What a machine that is no NixOS needs to run the services of the example's node01 as
  they are: { units = { <unit> = text; }; etc = { <file> = text; }; groups = [ name ];
  users = { <user> = its group; }; }.
  vmtests/systemd_test.go boots it.
*/
{ lib, mkCluster }:
let
  inherit
    ((mkCluster {
      modules = [ ../examples/three-nodes/cluster.nix ];
    }).nixosConfigurations.node01
    )
    config
    ;
  text = file: if file.text != null then file.text else builtins.readFile file.source;
in
{
  units = lib.mapAttrs (_: import ./unit.nix { inherit lib; }) (
    lib.filterAttrs (
      name: _: name == "gobgpd" || lib.hasPrefix "plasmacloud-" name
    ) config.systemd.services
  );
  etc = lib.mapAttrs (_: text) config.environment.etc;
  groups = lib.attrNames config.users.groups;
  users = lib.mapAttrs (_: user: user.group) config.users.users;
}
