{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp = {
      asn = 65001;
      peers.reflector = {
        address = "10.0.0.11";
        asn = 65001;
      };
    };
    nodes.node01 = {
      ipv6 = "2001:db8::11";
      bgp.peers.own = {
        address = "2001:DB8:0::11";
        asn = 65001;
      };
    };
  };
  plasmacloud.network.fiberlbBgp.enable = true;
}
