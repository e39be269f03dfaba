{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp.peers.router1 = {
      address = "fe80::1";
      asn = 65000;
    };
    nodes.node01.bgp.peers.router2 = {
      address = "169.254.0.1";
      asn = 65000;
    };
  };
}
