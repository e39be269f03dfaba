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

  # What a text refers to is never built, so it need not be known.
  toFile = name: text: builtins.toFile name (builtins.unsafeDiscardStringContext text);

  base =
    final:
    lib.genAttrs [
      "bash"
      "bird2"
      "bird3"
      "coreutils"
      "etcd"
      "findutils"
      "frr"
      "git"
      "gnugrep"
      "gnumake"
      "gnused"
      "go"
      "gobgp"
      "iproute2"
      "jq"
      "nftables"
      "nix"
      "nixfmt"
      "nixfmt-tree"
      "openssl"
      "openvswitch"
      "ovn"
      "python3"
      "qemu"
      "qemu_test"
      "shellcheck"
      "systemd"
      "util-linux"
      "xorriso"
    ] fake
    // {
      # What it can do depends on its version.
      gobgpd = fake "gobgpd" // {
        version = "4.8.0";
      };
      inherit lib system;
      path = ./.;
      stdenv.hostPlatform = { inherit system; };

      writeText = toFile;
      writeTextDir = path: text: toFile (baseNameOf path) text;
      writeShellScript = name: text: toFile name "#!${final.bash}/bin/bash\n${text}\n";
      formats = {
        json = _: {
          type = lib.types.serializableValueWith { typeName = "JSON"; };
          generate = name: value: toFile name (builtins.toJSON value);
        };
        toml = _: {
          type = lib.types.serializableValueWith {
            typeName = "TOML";
            nullable = false;
          };
          generate = name: value: toFile name (import ./formats/toml.nix { inherit lib; } value);
        };
      };

      runCommand = name: _: _: fake name;
      mkShell = _: fake "shell";

      # The machines are evaluated, and nothing is run.
      testers.runNixOSTest =
        test:
        let
          nixosSystem = import ./nixos.nix { inherit lib; };
          nodes = lib.mapAttrs (
            name: module:
            (nixosSystem {
              inherit system;
              modules = [
                module
                {
                  networking.hostName = lib.mkDefault name;
                  # The test driver's machines boot from its disk.
                  boot.loader.grub.device = lib.mkForce "/dev/vda";
                  fileSystems = lib.mkForce {
                    "/" = {
                      device = "/dev/vda";
                      fsType = "ext4";
                    };
                  };
                }
              ];
            }).config
          ) test.nodes;
        in
        fake "vm-test-run-${test.name}"
        // {
          inherit nodes;
          config = {
            inherit (test) name;
            testScriptString =
              if lib.isFunction test.testScript then test.testScript { inherit nodes; } else test.testScript;
          };
        };

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
        fake (given.pname or given.name)
        // given
        // {
          overrideAttrs = change: final.buildGoModule (given // change given);
        };
    };
in
lib.fix (lib.foldl' (f: overlay: lib.extends overlay f) base overlays)
