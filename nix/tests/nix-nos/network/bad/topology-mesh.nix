{
  nix-nos.topology = {
    self = "node1";
    bgp = "mesh";
    nodes = {
      node1 = {
        addresses = [ "10.0.0.1" ];
        asn = 65001;
      };
      node2 = {
        addresses = [ "2001:db8::2" ];
        asn = 65001;
      };
    };
  };
}
