# What BIRD and FRR have, and GoBGP has not.
{
  imports = [ ./bfd.nix ];
  nix-nos.bgp = {
    installRoutes = {
      enable = true;
      maxPaths = 2;
    };
    # Whose next hops are looked up among the machine's routes.
    peers.inside = {
      address = "10.0.0.3";
      asn = 65001;
      timers.connectRetry = 1;
      families = [ "ipv4" ];
    };
  };
}
