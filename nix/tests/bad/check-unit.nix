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
            type = "systemd";
            unit = "nginx";
          }
        ];
      }
    ];
  };
}
