# What goes to and comes from each peer, by rules.
{ lib, ... }:
{
  imports = [ ./all.nix ];
  nix-nos.bgp = {
    transit = true;
    gracefulRestart.enable = false;
    peers = {
      bird = {
        import = lib.mkForce [
          {
            prefixes = [ "198.51.101.0/24" ];
            action = "reject";
          }
          {
            prefixes = [
              "198.51.100.0/22"
              "2001:db8:9::1/128"
            ];
            orLonger = true;
            localPref = 250;
            med = 7;
            communities = [
              "65001:900"
              "65001:9:9"
            ];
          }
        ];
        export = "none";
      };
      frr.export = [
        {
          prefixes = [ "203.0.114.0/24" ];
          med = 77;
          communities = [
            "65001:903"
            "65001:1:3"
          ];
          prepend = 1;
        }
        {
          prefixes = [ "203.0.0.0/16" ];
          orLonger = true;
          action = "reject";
        }
        { communities = [ "65001:905" ]; }
      ];
      inside-1.export = [
        {
          prefixes = [ "203.0.112.0/22" ];
          orLonger = true;
          maxLength = 24;
          localPref = 300;
          med = 3;
        }
        {
          prefixes = [ "198.51.100.0/22" ];
          orLonger = true;
          communities = [ "65001:904" ];
        }
        "203.0.115.7/32"
        "2001:db8:3::/64"
      ];
      only4.import = [
        {
          localPref = 50;
          communities = [ "65001:902" ];
        }
      ];
    };
  };
}
