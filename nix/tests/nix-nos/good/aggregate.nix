# What FRR has alone.
{
  imports = [ ./all.nix ];
  nix-nos.bgp = {
    gracefulRestart.enable = false;
    announcements = [
      {
        prefix = "203.0.112.0/22";
        nextHop = "10.0.0.11";
        communities = [ "65001:112" ];
        aggregate.enable = true;
        aggregate.summaryOnly = true;
      }
      {
        prefix = "192.0.2.0/24";
        nextHop = "10.0.0.11";
        aggregate.enable = true;
      }
      {
        prefix = "2001:db8::/44";
        nextHop = "2001:db8:0:1::11";
        aggregate.enable = true;
        peers = [ "bird" ];
      }
    ];
  };
}
