# Passwords of peers: the daemon's configuration in the store has a mark in place
# of each, and a script of root's puts the password there when the unit starts
# or reloads.
{
  lib,
  bgp,
  pkgs,
}:
let
  peers = lib.filterAttrs (_: p: p.passwordFile != null) bgp.peers;
  # By number, since a name may be anything.
  numbers = lib.listToAttrs (
    lib.imap1 (number: name: lib.nameValuePair name number) (lib.attrNames peers)
  );
  mark = name: "@password-${toString numbers.${name}}@";
in
{
  any = peers != { };
  inherit mark;

  file = name: "/run/nix-nos-bgp/${name}";

  # The script; format is what to write the passwords as: bird, frr or toml.
  render =
    format: template: output: owned:
    pkgs.writeShellScript "nix-nos-bgp-render" ''
      PATH=${pkgs.coreutils}/bin
      set -- ${
        lib.escapeShellArgs (
          [
            format
            template
            output
            owned
          ]
          ++ lib.concatLists (
            lib.mapAttrsToList (name: p: [
              (mark name)
              (toString p.passwordFile)
            ]) peers
          )
        )
      }
      ${builtins.readFile ./render-passwords.sh}
    '';
}
