{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      "2001:db8::10"
      { address = "2001:DB8:0:0::0010"; }
    ];
  };
}
