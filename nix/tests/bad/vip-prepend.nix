{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster.bgp.asn = 65001;
    network.fiberlbBgp.enable = true;
    network.fiberlbBgp.vips = [
      {
        address = "203.0.113.10";
        prepend = 256;
      }
    ];
  };
}
