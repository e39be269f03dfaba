# Whatever the daemon.
{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65001;
      localAddress = "2001:db8::11";
      multihop = 2;
      ttlSecurity = 1;
      timers.hold = 9;
      timers.keepalive = 9;
      families = [ ];
    };
  };
}
