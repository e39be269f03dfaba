# One own address and port to listen on, and peers that need a password; one of
# them hears not all.
{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    listen = {
      addresses = [ "10.0.0.11" ];
      port = 1179;
    };
    peers = {
      right = {
        address = "10.0.0.1";
        asn = 65000;
        localAddress = "10.0.0.11";
        passive = true;
        passwordFile = "/run/secrets/right";
        families = [ "ipv4" ];
        export = [
          {
            prefixes = [ "203.0.113.0/24" ];
            med = 5;
            communities = [ "65001:1" ];
          }
        ];
      };
      wrong = {
        address = "10.0.0.2";
        asn = 65000;
        localAddress = "10.0.0.11";
        passive = true;
        passwordFile = "/run/secrets/wrong";
        families = [ "ipv4" ];
      };
    };
    openFirewall = true;
    announcements = [
      { prefix = "203.0.113.0/24"; }
      { prefix = "203.0.114.0/24"; }
    ];
  };
}
