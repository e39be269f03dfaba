{
  imports = [ ../base.nix ];
  plasmacloud.cluster.sites."Berlin 1".bgp.peers.router1 = {
    address = "fe80::1";
    asn = 0;
  };
}
