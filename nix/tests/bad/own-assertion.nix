{
  imports = [ ../base.nix ];
  assertions = [
    {
      assertion = false;
      message = "rack 4 has no power";
    }
  ];
}
