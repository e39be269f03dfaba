{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
    };
    announcements = [
      {
        prefix = "203.0.113.0/24";
        peers = [
          "router1"
          "router2"
        ];
      }
    ];
  };
}
