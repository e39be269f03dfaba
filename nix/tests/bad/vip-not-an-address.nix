{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      "203.0.113.300"
      "lb.example.org"
    ];
  };
}
