# A derivation that says why it fails, for what must have one to be evaluated.
{
  name,
  system ? "x86_64-linux",
}:
derivation {
  inherit name system;
  builder = "/bin/sh";
  args = [
    "-c"
    "echo '${name}: the stand-in for nixpkgs evaluates only; use nixpkgs itself to build' >&2; exit 1"
  ];
}
