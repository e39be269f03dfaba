{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      {
        address = "2001:db8::10";
        checks = [
          {
            type = "http";
            url = "http://[2001:DB8:0::10]:80/";
          }
        ];
      }
    ];
  };
}
