{
  nixpkgs.overlays = [ (_: prev: { gobgpd = prev.gobgpd // { version = "4.5.1"; }; }) ];
  nix-nos.bgp = {
    backend = "gobgp";
    asn = 65001;
    routerId = "10.0.0.11";
    installRoutes.enable = true;
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
      bfd.enable = true;
    };
    peers.router2 = {
      interface = "eth0";
      asn = 65000;
    };
    announcements = [
      {
        prefix = "203.0.113.0/24";
        aggregate.enable = true;
      }
    ];
  };
}
