{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster.bgp.asn = 65001;
    cluster.nodes.node01.ipv6 = "2001:db8::11";
    network.fiberlbBgp = {
      enable = true;
      pools = [
        "203.0.113.0/25"
        "203.0.113.64/26"
        "198.51.100.1/24"
        "192.0.2.0"
        "2001:db8:0:2::/64"
      ];
      vips = [
        "203.0.113.127"
        "203.0.113.128"
        "2001:db8:0:2::10"
        "2001:db8:0:3::10"
      ];
    };
  };
}
