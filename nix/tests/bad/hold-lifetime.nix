{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    holdLifetime = "4m59s";
    vips = [ "203.0.113.10" ];
  };
}
