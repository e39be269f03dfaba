{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp = {
      asn = 65001;
      peers.router1 = {
        address = "10.0.0.1";
        asn = 65000;
      };
    };
    nodes.node01.bgp.peers.router2 = {
      address = "2001:db8::1";
      asn = 65000;
    };
  };
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      "10.0.0.1/32"
      "2001:DB8:0::1"
    ];
  };
}
