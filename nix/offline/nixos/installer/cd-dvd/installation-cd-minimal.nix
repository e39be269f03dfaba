# NixOS' minimal installation image, as far as what builds on it can be evaluated.
# What it sets of other options, and must be overridden, it sets here too.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
in
{
  options = {
    image = {
      baseName = mkOption {
        type = types.str;
        default = "nixos-image-offline";
        description = "Name of the image's file, without its extension.";
      };
      extension = mkOption {
        type = types.str;
        description = "Extension of the image's file.";
      };
      fileName = mkOption {
        type = types.str;
        default = "${config.image.baseName}.${config.image.extension}";
        description = "Name of the image's file.";
      };
      filePath = mkOption {
        type = types.str;
        default = "iso/${config.image.fileName}";
        description = "Path of the file in the image's store path.";
      };
    };
    isoImage = {
      volumeID = mkOption {
        type = types.str;
        default = "nixos-minimal-offline";
        description = "Label of the file system.";
      };
      contents = mkOption {
        type = types.listOf types.attrs;
        default = [ ];
        description = "Files of the image outside of the store.";
      };
      storeContents = mkOption {
        type = types.listOf types.unspecified;
        default = [ ];
        description = "What else is in the image's store.";
      };
      squashfsCompression = mkOption {
        type = types.nullOr types.str;
        default = "zstd -Xcompression-level 19";
        description = "How the store is compressed.";
      };
    };
    services.getty = {
      autologinUser = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "Who is logged in at the console without a password.";
      };
      helpLine = mkOption {
        type = types.lines;
        default = "";
        description = "What the console shows above its prompt.";
      };
    };
  };

  config = {
    # It boots by itself, into memory.
    boot.loader.grub.enable = lib.mkForce false;
    fileSystems."/" = lib.mkForce {
      device = "tmpfs";
      fsType = "tmpfs";
    };

    image.baseName = "nixos-minimal-offline";
    image.extension = "iso";
    services.getty = {
      autologinUser = "nixos";
      helpLine = "The \"nixos\" and \"root\" accounts have empty passwords.";
    };
    services.openssh = {
      enable = lib.mkDefault true;
      settings.PermitRootLogin = lib.mkDefault "yes";
    };
    users.users = {
      nixos = {
        isNormalUser = true;
        initialHashedPassword = "";
      };
      root.initialHashedPassword = "";
    };

    assertions = [
      {
        assertion = lib.stringLength config.isoImage.volumeID <= 32;
        message = "isoImage.volumeID: \"${config.isoImage.volumeID}\" is longer than 32 characters.";
      }
    ];
    system.build.isoImage =
      let
        # With what toplevel checks.
        name = builtins.seq config.system.build.toplevel.drvPath config.image.fileName;
        inherit (import ../../../unbuildable.nix { inherit name; }) drvPath;
      in
      {
        type = "derivation";
        inherit name drvPath;
        outPath = drvPath;
      };
  };
}
