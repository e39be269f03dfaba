{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    holdLifetime = "1h";
    vips = [
      {
        address = "203.0.113.10";
        hold = "route";
      }
    ];
  };
}
