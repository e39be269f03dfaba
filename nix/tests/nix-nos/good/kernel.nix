# What BIRD and FRR have, and GoBGP has not.
{
  imports = [ ./bfd.nix ];
  nix-nos.bgp.installRoutes = {
    enable = true;
    maxPaths = 2;
  };
}
