{
  networking.hostName = "node9";
  nix-nos.topology = {
    bgp = "mesh";
    configureInterfaces = true;
    nodes.node1.asn = 65001;
  };
}
