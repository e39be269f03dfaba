{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster = {
      bgp.asn = 65001;
      sites.berlin.bgp.peers.reflector = {
        address = "10.0.0.11";
        asn = 65001;
      };
      nodes.node01.site = "berlin";
    };
    network.fiberlbBgp.enable = true;
    network.fiberlbBgp.vips = [ "10.0.0.11" ];
  };
}
