# Addresses and prefixes of the right form that nobody could use.
{
  nix-nos.bgp = {
    backend = "bird";
    asn = 65001;
    routerId = "224.0.0.1";
    installRoutes.maxPaths = 2;
    peers = {
      group = {
        address = "224.0.0.5";
        asn = 65000;
      };
      itself = {
        address = "10.0.0.11";
        localAddress = "10.0.0.11";
        asn = 65000;
      };
      left = {
        address = "2001:db8::1";
        asn = 65000;
      };
      right = {
        address = "2001:DB8:0::1";
        asn = 65002;
      };
      link = {
        interface = "eth0";
        passive = true;
        ttlSecurity = 2;
        asn = 65000;
      };
      same-link = {
        interface = "eth0";
        passive = true;
        asn = 65003;
      };
    };
    announcements = [
      { prefix = "224.0.0.0/4"; }
      { prefix = "fe80::/64"; }
      {
        prefix = "203.0.113.0/24";
        nextHop = "0.0.0.0";
      }
      # Half of everything is a route.
      { prefix = "0.0.0.0/1"; }
    ];
  };
}
