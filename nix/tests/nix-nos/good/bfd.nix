# What BIRD and FRR have, and GoBGP has not.
{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
      bfd.enable = true;
    };
  };
}
