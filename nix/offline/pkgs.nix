/*
  A package set without packages: each name is a store path that nobody built.
  Text files are real, so that what refers to them can be looked at.
*/
{
  lib,
  system ? "x86_64-linux",
  overlays ? [ ],
}:
let
  fake =
    name:
    {
      type = "derivation";
      inherit name system;
      pname = name;
      version = "offline";
      outputName = "out";
      outputs = [ "out" ];
      outPath = "/nix/store/${lib.substring 0 32 (builtins.hashString "sha256" name)}-${name}";
      inherit (import ./unbuildable.nix { inherit system name; }) drvPath;
    };

  base =
    final:
    lib.genAttrs [
      "bash"
      "bird3"
      "coreutils"
      "findutils"
      "frr"
      "gnugrep"
      "gnused"
      "gobgp"
      "gobgpd"
      "iproute2"
      "jq"
      "nixfmt"
      "nixfmt-tree"
      "openvswitch"
      "systemd"
    ] fake
    // {
      inherit lib system;
      stdenv.hostPlatform = { inherit system; };

      writeText = name: text: builtins.toFile name text;
      writeTextDir = path: text: builtins.toFile (baseNameOf path) text;
      writeShellScript = name: text: builtins.toFile name "#!${final.bash}/bin/bash\n${text}\n";
      formats = {
        json = _: {
          type = import ./formats/value-type.nix { inherit lib; } "JSON value" true;
          generate = name: value: builtins.toFile name (builtins.toJSON value);
        };
        toml = _: {
          type = import ./formats/value-type.nix { inherit lib; } "TOML value" false;
          generate = name: value: builtins.toFile name (import ./formats/toml.nix { inherit lib; } value);
        };
      };

      runCommand = name: _: _: fake name;

      callPackage =
        file: args:
        let
          f = if lib.isFunction file then file else import file;
        in
        f (builtins.intersectAttrs (lib.functionArgs f) final // args);
      buildGoModule =
        args:
        let
          given = if lib.isFunction args then lib.fix args else args;
        in
        fake (given.pname or given.name) // given;
    };
in
lib.fix (lib.foldl' (f: overlay: lib.extends overlay f) base overlays)
