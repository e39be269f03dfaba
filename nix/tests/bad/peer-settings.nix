{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    bgp = {
      asn = 65001;
      peers = {
        router1 = {
          address = "10.0.0.1";
          asn = 65000;
          localAddress = "10.0.0.11";
          timers = {
            hold = 9;
            keepalive = 9;
          };
          multihop = 2;
          ttlSecurity = 1;
        };
        router2 = {
          interface = "eth0";
          asn = 65000;
          families = [ ];
        };
        router3.asn = 65000;
      };
    };
    nodes.node01.bgp.peers.router4 = {
      address = "10.0.0.4";
      asn = 65001;
      multihop = 2;
      localAddress = "2001:db8::11";
      passwordFile = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-password";
    };
  };
}
