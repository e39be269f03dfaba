/*
  A NixOS VM test that runs a cluster in plasmactl's lab, with the configuration of
  its own nodes: for the checks of a cluster's flake.

  The machine needs no Nix: what it runs was evaluated when the test was.
*/
{
  pkgs,
  # What mkCluster returns.
  cluster,
  # Names of the catalogue, and files.
  scenarios ? [ ],
  memoryMiB ? 2048,
  cores ? 2,
}:
let
  inherit (pkgs) lib;
  machines = import ../machines/machines.nix "" cluster.nixosConfigurations;
  evaluated = pkgs.writeText "machines.json" (builtins.toJSON machines);
in
pkgs.testers.runNixOSTest {
  name = "plasmacloud-lab";
  nodes.lab =
    { pkgs, ... }:
    {
      environment.systemPackages = [
        pkgs.bird2
        pkgs.frr
        pkgs.gobgp
        pkgs.gobgpd
        pkgs.iproute2
        pkgs.nftables
        (pkgs.callPackage ../package.nix { })
      ];
      # Whom FRR runs as, for routers that are frr by their names.
      users.users.frr = {
        isSystemUser = true;
        group = "frr";
        extraGroups = [ "frrvty" ];
      };
      users.groups.frr = { };
      users.groups.frrvty = { };
      virtualisation = {
        inherit cores;
        memorySize = memoryMiB;
      };
    };
  testScript = ''
    lab.start()
    lab.wait_for_unit("multi-user.target")
    print(lab.succeed("plasmactl test --evaluated ${evaluated} ${lib.escapeShellArgs (map toString scenarios)} 2>&1"))
  '';
}
