# BFD with timers, and without.
{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    openFirewall = true;
    peers = {
      left = {
        address = "10.0.0.1";
        asn = 65000;
        timers.hold = 600;
        timers.connectRetry = 1;
        families = [ "ipv4" ];
        bfd = {
          enable = true;
          transmitInterval = 50;
          receiveInterval = 60;
          multiplier = 4;
        };
      };
      right = {
        address = "10.0.0.2";
        asn = 65002;
        timers.hold = 600;
        timers.connectRetry = 1;
        families = [ "ipv4" ];
        bfd.enable = true;
      };
    };
  };
}
