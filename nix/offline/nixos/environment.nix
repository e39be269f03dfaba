{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
in
{
  options.environment = {
    systemPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Packages in everybody's PATH.";
    };
    etc = mkOption {
      type = types.attrsOf (
        types.submodule (
          { name, config, ... }:
          {
            options = {
              enable = mkOption {
                type = types.bool;
                default = true;
                description = "Whether the file is there.";
              };
              target = mkOption {
                type = types.str;
                default = name;
                description = "Its name below /etc.";
              };
              text = mkOption {
                type = types.nullOr types.lines;
                default = null;
                description = "Its content.";
              };
              source = mkOption {
                type = types.path;
                description = "The file that it is made from.";
              };
              mode = mkOption {
                type = types.str;
                default = "symlink";
                description = "Its mode; symlink: a link into the store.";
              };
              user = mkOption {
                type = types.str;
                default = "+0";
                description = "Its owner.";
              };
              group = mkOption {
                type = types.str;
                default = "+0";
                description = "Its group.";
              };
            };
            config.source = lib.mkIf (config.text != null) (
              lib.mkDefault (pkgs.writeText (builtins.replaceStrings [ "/" ] [ "-" ] name) config.text)
            );
          }
        )
      );
      default = { };
      description = "Files below /etc.";
    };
  };
}
