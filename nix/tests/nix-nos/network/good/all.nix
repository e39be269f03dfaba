# Everything that networkd is told.
{
  nix-nos = {
    interfaces = {
      lo.addresses = [
        "10.255.0.1/32"
        "2001:DB8:255::1/128"
      ];
      eth0 = {
        mac = "52:54:00:AB:cd:ef";
        addresses = [
          "192.0.2.10/24"
          "2001:DB8::10/64"
        ];
        mtu = 1400;
      };
      eth1 = {
        mtu = 1450;
        linkLocal = "none";
      };
      br0 = {
        bridge.members = [
          "eth2"
          "eth3"
        ];
        addresses = [ "198.51.100.1/25" ];
      };
      eth2.mtu = 1300;
      bond0 = {
        bond = {
          members = [
            "eth4"
            "eth5"
          ];
          mode = "active-backup";
        };
        dhcp = "both";
      };
      wan = {
        dhcp = "ipv4";
        requiredForOnline = false;
        linkLocal = "both";
      };
    };
    vlans = {
      storage = {
        id = 100;
        interface = "eth1";
        addresses = [ "203.0.113.2/31" ];
        mtu = 1440;
      };
      "eth1.7" = {
        id = 7;
        interface = "eth1";
        acceptRA = true;
      };
    };
    routing = {
      forwarding = true;
      static = [
        {
          destination = "0.0.0.0/0";
          gateway = "192.0.2.1";
          source = "10.255.0.1";
        }
        {
          destination = "::/0";
          gateway = "fe80::1";
          interface = "eth0";
          metric = 50;
        }
        {
          destination = "10.1.0.0/16";
          gateway = "203.0.113.3";
          table = 100;
          metric = 7;
        }
        {
          destination = "10.2.0.0/16";
          nextHops = [
            { gateway = "192.0.2.2"; }
            {
              gateway = "198.51.100.2";
              weight = 3;
            }
          ];
        }
        {
          destination = "10.3.0.0/16";
          gateway = "10.99.0.1";
          interface = "eth0";
          onLink = true;
        }
        {
          destination = "10.4.0.0/16";
          interface = "br0";
        }
        {
          destination = "10.5.0.0/16";
          type = "blackhole";
        }
        {
          destination = "2001:DB8:5::/48";
          type = "unreachable";
          metric = 10;
        }
        {
          destination = "10.6.0.0/16";
          type = "prohibit";
        }
      ];
    };
  };
}
