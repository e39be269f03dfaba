{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp.asn = 65001;
    nodes.node01.bgp.routerId = "0.0.0.0";
    nodes.node02.bgp.routerId = "224.0.0.1";
    nodes.node03 = {
      ip = "10.0.0.13";
      bgp.routerId = "255.255.255.255";
    };
  };
}
