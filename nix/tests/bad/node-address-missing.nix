{
  imports = [ ../one.nix ];
}
