{ lib, pkgs, ... }:
{
  options.plasmacloud.package = lib.mkOption {
    type = lib.types.package;
    default = pkgs.plasmacloud or (pkgs.callPackage ../../package.nix { });
    defaultText = lib.literalExpression "pkgs.plasmacloud";
    example = lib.literalExpression "pkgs.plasmacloud";
    description = "The package with PlasmaCloud's programs; the flake's overlay provides pkgs.plasmacloud.";
  };
}
