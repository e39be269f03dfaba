# How a machine starts, as far as NixOS refuses one that could not.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  inherit (config) boot fileSystems;

  flag =
    default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
  text =
    default: description:
    mkOption {
      type = types.nullOr types.str;
      inherit default description;
    };
  strings =
    default: description:
    mkOption {
      type = types.listOf types.str;
      inherit default description;
    };

  fileSystem =
    { name, ... }:
    {
      options = {
        enable = flag true "Whether it is mounted.";
        mountPoint = mkOption {
          type = types.str;
          default = name;
          description = "Where it is mounted.";
        };
        device = text null "What is mounted.";
        label = text null "The label of what is mounted.";
        fsType = mkOption {
          type = types.str;
          default = "auto";
          description = "Its type.";
        };
        options = strings [ "defaults" ] "Options of mount(8).";
        depends = strings [ ] "Mount points that come before it.";
        autoFormat = flag false "Whether an empty device gets a file system.";
        autoResize = flag false "Whether it grows with its device.";
        noCheck = flag false "Whether it is never checked.";
        neededForBoot = flag false "Whether it is mounted before the system starts.";
      };
    };

  loader = {
    freeformType = types.attrsOf types.anything;
    options.grub = mkOption {
      type = types.submodule {
        freeformType = types.attrsOf types.anything;
        options = {
          enable = flag (!boot.isContainer) "Whether GRUB is the boot loader.";
          device = mkOption {
            type = types.str;
            default = "";
            description = "The disk that it is written to; nodev: none, as with EFI.";
          };
          devices = strings [ ] "The disks that it is written to.";
          mirroredBoots = mkOption {
            type = types.listOf types.anything;
            default = [ ];
            description = "Its copies, each with their disks.";
          };
        };
      };
      default = { };
      description = "GRUB.";
    };
  };
  # A boot loader that is chosen takes GRUB's place.
  others = lib.filter (name: boot.loader.${name}.enable or false) [
    "external"
    "limine"
    "refind"
    "systemd-boot"
  ];
  inherit (boot.loader) grub;
in
{
  options = {
    fileSystems = mkOption {
      type = types.attrsOf (types.submodule fileSystem);
      default = { };
      apply = lib.filterAttrs (_: fs: fs.enable);
      description = "The file systems of the machine.";
    };
    boot = {
      isContainer = flag false "Whether the machine is a container, which has no boot loader.";
      initrd = mkOption {
        type = types.anything;
        default = { };
        description = "Taken as it is.";
      };
      loader = mkOption {
        type = types.submodule loader;
        default = { };
        description = "Boot loaders. Those other than GRUB are taken as they are.";
      };
    };
  };

  config = {
    boot.loader.grub.enable = lib.mkIf (others != [ ]) (lib.mkDefault false);
    assertions =
      lib.optional (boot.initrd.enable or (!boot.isContainer)) {
        assertion = lib.any (fs: fs.mountPoint == "/") (lib.attrValues fileSystems);
        message = "fileSystems has no root file system, \"/\".";
      }
      ++ lib.optional grub.enable {
        assertion = grub.device != "" || grub.devices != [ ] || grub.mirroredBoots != [ ];
        message = "boot.loader.grub.devices (or boot.loader.grub.mirroredBoots) is not set, so the system cannot boot.";
      };
  };
}
