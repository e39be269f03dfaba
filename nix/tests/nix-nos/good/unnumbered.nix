# A peer that BIRD and FRR find on a link, where GoBGP would not.
{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    peers.found = {
      interface = "eth-found";
      asn = 65000;
      passive = true;
      timers.connectRetry = 1;
    };
    announcements = [
      { prefix = "203.0.113.0/24"; }
      { prefix = "2001:db8:1::/48"; }
    ];
  };
}
