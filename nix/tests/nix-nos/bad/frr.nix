{
  nix-nos.bgp = {
    backend = "frr";
    asn = 65001;
    routerId = "10.0.0.11";
    installRoutes.enable = true;
    listen.addresses = [ "10.0.0.11" ];
    peers.router1 = {
      address = "fe80::1";
      interface = "eth0";
      asn = 65000;
    };
  };
}
