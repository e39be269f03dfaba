# Options that machines commonly set and that nothing here depends on: any value
# is taken, so that a node's own modules can be evaluated along.
{ lib, ... }:
let
  taken = lib.mkOption {
    type = lib.types.anything;
    default = { };
    description = "Taken as it is; only nixpkgs knows what may stand here.";
  };
in
{
  options = {
    console = taken;
    disko = taken;
    documentation = taken;
    hardware = taken;
    i18n = taken;
    networking = {
      interfaces = taken;
      useDHCP = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether addresses come by DHCP.";
      };
    };
    nix = taken;
    programs = taken;
    security = taken;
    services = {
      dnsmasq = taken;
      nginx = taken;
      openssh = taken;
      resolved = taken;
      timesyncd = taken;
    };
    swapDevices = lib.mkOption {
      type = lib.types.listOf lib.types.anything;
      default = [ ];
      description = "Taken as it is.";
    };
    systemd = {
      targets = taken;
      timers = taken;
    };
    time = taken;
    virtualisation = {
      cores = taken;
      memorySize = taken;
      vlans = taken;
    };
  };
}
