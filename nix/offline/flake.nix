{
  description = "A stand-in for the part of nixpkgs that PlasmaCloud evaluates";

  outputs =
    { self }:
    {
      lib = import ./lib;
    };
}
