{
  nix-nos.bgp = {
    backend = "bird";
    asn = 65001;
    routerId = "10.0.0.11";
    listen.addresses = [ "10.0.0.11" ];
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
    };
    peers.router2 = {
      interface = "eth0";
      asn = 65000;
      localAddress = "fe80::11";
    };
    announcements = [
      {
        prefix = "203.0.113.0/24";
        aggregate.enable = true;
      }
    ];
  };
}
