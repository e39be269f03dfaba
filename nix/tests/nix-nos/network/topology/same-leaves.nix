# Leaves of one AS, which drop each other's routes: the spine warns.
{
  nix-nos.topology = {
    bgp = "links";
    nodes = {
      spine1 = {
        addresses = [ "10.255.0.1" ];
        asn = 65100;
        tier = "spine";
      };
      leaf1 = {
        asn = 65101;
        tier = "leaf";
      };
      leaf2 = {
        asn = 65101;
        tier = "leaf";
      };
    };
    links = [
      {
        a = {
          node = "spine1";
          interface = "eth1";
        };
        b = {
          node = "leaf1";
          interface = "eth1";
        };
        prefixes = [ "192.0.2.0/31" ];
      }
      {
        a = {
          node = "spine1";
          interface = "eth2";
        };
        b = {
          node = "leaf2";
          interface = "eth1";
        };
        prefixes = [ "192.0.2.2/31" ];
      }
    ];
  };
}
