{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp.asn = 65001;
    nodes.node02.bgp.routerId = "2001:db8::1";
    nodes.node04 = {
      ip = "2001:db8::14";
      services = [ "fiberlb" ];
    };
  };
  plasmacloud.network.fiberlbBgp.enable = true;
}
