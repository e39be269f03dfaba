# However an address is written, the manifest has it in one way.
{ lib, ... }:
{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster = {
      bgp = {
        asn = 4200000000;
        peers.router6 = {
          address = "2001:DB8::0:1";
          asn = 4200000001;
          passive = true;
          multihop = 3;
          description = "the other rack";
        };
      };
      deployer.url = "https://deployer.example.org/base";
      nodes.node02 = {
        ip = lib.mkForce "2001:0db8:0:0:0:0:0:12";
        services = [ "fiberlb" ];
        bgp.routerId = "192.0.2.12";
      };
    };
    network.fiberlbBgp = {
      enable = true;
      holdInterface = "br0";
      holdLifetime = "1h30m";
      drainDelay = "1m30s";
      reconcileInterval = "500ms";
      vips = [
        "2001:DB8:1:0:0:0:0:10/128"
        {
          address = "2001:db8:1::20";
          communities = [
            "65001:0"
            "4200000000:1:2"
          ];
          med = 0;
          localPref = 4294967295;
          checks = [
            {
              type = "tcp";
              address = "[::1]:80";
              interval = "1.5s";
              rise = 1;
            }
          ];
        }
      ];
    };
  };
}
