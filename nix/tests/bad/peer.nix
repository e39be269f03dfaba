{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp.peers.router1 = {
      address = "10.0.0";
      asn = 65535;
    };
    nodes.node02.bgp.peers.router2 = {
      address = "router2";
      asn = 0;
    };
  };
}
