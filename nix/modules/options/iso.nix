# What a cluster says of the ISO that its machines boot first.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.plasmacloud.iso = {
    sshKeys = mkOption {
      type = types.listOf types.singleLineStr;
      default = [ ];
      example = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0lUPX2Dq5yRPXJTQnTBEPYhKJ5cJqUuBtmXJbEPRzo operator" ];
      description = "Public SSH keys that log in as root while a machine runs from the ISO. Those of an installed node are a matter of its own configuration.";
    };
    installFlake = mkOption {
      type = types.nullOr (types.strMatching "[0-9A-Za-z/_.:,+=@%?&~-]+");
      default = null;
      example = "github:example/my-cluster";
      description = ''
        The flake that nodes are installed from, over the network, as a machine
        that boots the ISO can reach it. Null: the ISO carries the systems of
        the nodes that it installs.
      '';
    };
  };
}
