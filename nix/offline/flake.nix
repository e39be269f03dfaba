{
  description = "A stand-in for the part of nixpkgs that PlasmaCloud evaluates";

  outputs =
    { self }:
    let
      # Any lib can lie in ./lib, nixpkgs' own too.
      lib = import ./lib // {
        nixosSystem = import ./nixos.nix { inherit lib; };
      };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ] (system: import ./pkgs.nix { inherit lib system; });
    };
}
