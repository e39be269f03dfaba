{
  imports = [ ../base.nix ];
  networking.hostName = "node01";
}
