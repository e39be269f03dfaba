# Where the peers are, where the speaker listens, and whom it believes.
{
  nix-nos.bgp = {
    backend = "bird";
    asn = 65001;
    routerId = "10.0.0.11";
    listen = {
      addresses = [ "10.0.0.11/24" ];
      port = 0;
    };
    peers = {
      nowhere.asn = 65000;
      link = {
        address = "fe80::1";
        asn = 65000;
      };
      global = {
        address = "10.0.0.1";
        interface = "eth0";
        multihop = 2;
        asn = 65000;
      };
      secret = {
        address = "10.0.0.1";
        asn = 65000;
        passwordFile = builtins.toFile "password" "secret";
      };
    };
    announcements = [
      {
        prefix = "203.0.113.0/24";
        aggregate.summaryOnly = true;
      }
    ];
  };
}
