# What BIRD has alone.
{
  imports = [ ./unnumbered.nix ];
  nix-nos.bgp.peers = {
    named = {
      address = "fe80::2";
      interface = "eth-named";
      asn = 65002;
      timers.connectRetry = 1;
      families = [ "ipv6" ];
    };
    inside = {
      address = "fe80::3";
      interface = "eth-inside";
      asn = 65001;
      ttlSecurity = 1;
      families = [ "ipv6" ];
    };
    inside-found = {
      interface = "eth-inside-2";
      asn = 65001;
      passive = true;
    };
  };
}
