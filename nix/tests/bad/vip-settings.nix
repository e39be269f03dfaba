{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster.bgp.asn = 65001;
    network.fiberlbBgp = {
      enable = true;
      metrics.address = "node01";
      vips = [
        {
          address = "203.0.113.10";
          drainDelay = "25h";
        }
      ];
    };
  };
}
