{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      {
        address = "203.0.113.10";
        checks = [
          {
            type = "http";
            url = "http://127.0.0.1/";
          }
        ];
        require = 2;
      }
    ];
  };
}
