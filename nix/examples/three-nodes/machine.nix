# What the machines have beside their place in the cluster. The disks are a placeholder
# until you say what yours are: a definition of fileSystems anywhere else, such as in
# hardware-configuration.nix or by disko, takes the place of the one here.
{ lib, ... }:
{
  fileSystems = lib.mkDefault {
    "/" = {
      device = "/dev/disk/by-label/nixos";
      fsType = "ext4";
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
  boot.loader.systemd-boot.enable = lib.mkDefault true;
  boot.loader.efi.canTouchEfiVariables = lib.mkDefault true;

  # Log in as root with your key; nobody has a password.
  services.openssh.enable = true;
  users.users.root.openssh.authorizedKeys.keys = [
    # "ssh-ed25519 AAAA... you@example.org"
  ];

  # The release that the machines were installed with; it stays as it is.
  system.stateVersion = "26.05";
}
