# Two spines and two leaves, each leaf with a link to each spine.
{
  nix-nos.topology = {
    bgp = "links";
    configureInterfaces = true;
    sites.hall.asn = 65100;
    nodes = {
      spine1 = {
        addresses = [ "10.255.0.1" ];
        site = "hall";
        tier = "spine";
      };
      spine2 = {
        addresses = [ "10.255.0.2" ];
        site = "hall";
        tier = "spine";
      };
      leaf1 = {
        asn = 65101;
        site = "hall";
        tier = "leaf";
      };
      leaf2 = {
        asn = 65102;
        site = "hall";
        tier = "leaf";
      };
    };
    links = [
      {
        a = {
          node = "spine1";
          interface = "eth-leaf1";
        };
        b = {
          node = "leaf1";
          interface = "eth-spine1";
        };
        prefixes = [
          "192.0.2.0/31"
          "2001:DB8::/127"
        ];
      }
      {
        a = {
          node = "leaf2";
          interface = "eth-spine1";
        };
        b = {
          node = "spine1";
          interface = "eth-leaf2";
        };
        prefixes = [
          "192.0.2.4/30"
          "2001:db8:0:1::/64"
        ];
      }
      {
        a = {
          node = "spine2";
          interface = "eth-leaf1";
        };
        b = {
          node = "leaf1";
          interface = "eth-spine2";
        };
        prefixes = [
          "192.0.2.8/31"
          "2001:db8::2/127"
        ];
      }
      {
        a = {
          node = "spine2";
          interface = "eth-leaf2";
          addresses = [
            "192.0.2.17/29"
            "2001:db8:0:2::1/64"
          ];
        };
        b = {
          node = "leaf2";
          interface = "eth-spine2";
          addresses = [
            "2001:db8:0:2::9/64"
            "192.0.2.22/29"
          ];
        };
      }
    ];
  };
}
