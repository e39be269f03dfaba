{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster = {
      bgp.asn = 65001;
      nodes.node01.vips.exclude = [
        "203.0.113.10"
        "203.0.113.11"
        "203.0.113.0/24"
      ];
    };
    network.fiberlbBgp.enable = true;
    network.fiberlbBgp.vips = [ "203.0.113.10" ];
  };
}
