# An assertion that an option's file is no part of the Nix store, which everybody
# may read. A path without quotes would be copied there.
{ lib }:
option: file: {
  assertion = file == null || !builtins.isPath file && !lib.hasPrefix builtins.storeDir file;
  message = "${option}: ${toString file} would be in the Nix store, which everybody may read; write the path of a file outside of it, in quotes.";
}
