# The daemons would each take another next hop, or none.
{
  nix-nos.bgp = {
    backend = "frr";
    asn = 65001;
    routerId = "10.0.0.11";
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
    };
    announcements = [ { prefix = "2001:db8:1::/48"; } ];
  };
}
