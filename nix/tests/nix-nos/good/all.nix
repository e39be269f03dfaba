# Everything that all daemons can do.
{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    gracefulRestart.restartTime = 30;
    peers = {
      bird = {
        address = "10.0.0.1";
        asn = 65000;
        description = "top of rack, left";
        multihop = 2;
        import = [
          "198.51.100.0/24"
          "2001:db8:9::/48"
        ];
        timers.hold = 12;
        timers.connectRetry = 1;
      };
      frr = {
        address = "10.0.0.2";
        asn = 65000;
        localAddress = "10.0.0.11";
        passive = true;
        timers.hold = 30;
        timers.keepalive = 5;
        gracefulRestart.enable = false;
        import = "none";
      };
      inside-1 = {
        address = "2001:DB8:0:1::3";
        asn = 65001;
        timers.connectRetry = 1;
      };
      only4 = {
        address = "10.0.0.4";
        asn = 65002;
        families = [ "ipv4" ];
        ttlSecurity = 1;
        timers.connectRetry = 1;
      };
    };
    announcements = [
      {
        prefix = "203.0.113.0/24";
        nextHop = "10.0.0.11";
      }
      {
        prefix = "203.0.114.0/24";
        nextHop = "10.0.0.99";
        communities = [
          "65001:1"
          "65001:1:2"
          "65001:2"
          "65001:4294967295:0"
        ];
        med = 5;
        localPref = 200;
        prepend = 2;
      }
      {
        prefix = "203.0.115.7/32";
        nextHop = "10.0.0.11";
        peers = [
          "frr"
          "inside-1"
        ];
        med = 0;
      }
      {
        prefix = "203.0.116.0/22";
        nextHop = "10.0.0.11";
        # no-export: for the peers to heed, not for us.
        communities = [ "65535:65281" ];
        prepend = 1;
        peers = [ "bird" ];
      }
      {
        prefix = "2001:DB8:1::/48";
        nextHop = "2001:DB8:0:1::11";
        communities = [ "65001:100" ];
        med = 4294967295;
      }
      {
        prefix = "2001:db8:2::10/128";
        nextHop = "2001:db8:0:1::99";
        localPref = 50;
        prepend = 1;
      }
      {
        prefix = "2001:db8:3::/64";
        peers = [ "inside-1" ];
      }
    ];
  };
}
