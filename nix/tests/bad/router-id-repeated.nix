{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp.asn = 65001;
    # node01 takes it from its ip.
    nodes.node02 = {
      services = [ "fiberlb" ];
      bgp.routerId = "10.0.0.11";
    };
  };
  plasmacloud.network.fiberlbBgp.enable = true;
}
