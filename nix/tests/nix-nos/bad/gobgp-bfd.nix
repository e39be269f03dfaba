{
  nix-nos.bgp = {
    backend = "gobgp";
    asn = 65001;
    routerId = "10.0.0.11";
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
      bfd.enable = true;
      import = [ "203.0.113.1/24" ];
    };
  };
}
