{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      "fe80::1"
    ];
  };
}
