{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    drainDelay = "99999999999999999999999999h";
  };
}
