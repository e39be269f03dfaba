# What BIRD and GoBGP have, and FRR has not.
{
  imports = [ ./all.nix ];
  nix-nos.bgp = {
    gracefulRestart.enable = false;
    peers.bird.maxPrefixes = 1;
    peers.only4.maxPrefixes = 1;
  };
}
