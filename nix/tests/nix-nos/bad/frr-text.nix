{
  nix-nos.bgp = {
    backend = "frr";
    asn = 65001;
    routerId = "10.0.0.11";
    peers."router one" = {
      address = "10.0.0.1";
      asn = 65000;
      maxPrefixes = 10;
      description = "top\n\"of\" rack";
    };
  };
}
