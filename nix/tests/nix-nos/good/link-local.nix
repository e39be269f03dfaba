# What BIRD has alone.
{
  imports = [ ./unnumbered.nix ];
  nix-nos.bgp.peers.named = {
    address = "fe80::2";
    interface = "eth-named";
    asn = 65002;
    timers.connectRetry = 1;
    families = [ "ipv6" ];
  };
}
