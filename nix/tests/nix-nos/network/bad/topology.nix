{
  networking.hostName = "leaf1";
  nix-nos.bgp = {
    enable = true;
    routerId = "10.0.0.1";
  };
  nix-nos.topology = {
    bgp = "links";
    sites.hall.asn = 0;
    nodes = {
      spine1.addresses = [ "10.0.0.1" ];
      spine2 = {
        addresses = [
          "10.0.0.1"
          "10.0.0.2/24"
        ];
        asn = 65535;
        site = "cellar";
      };
      leaf1.asn = 65101;
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
        prefixes = [ "192.0.2.1/31" ];
      }
      {
        a = {
          node = "spine2";
          interface = "eth1";
          addresses = [ "192.0.2.8/31" ];
        };
        b = {
          node = "leaf1";
          interface = "eth1";
          addresses = [ "2001:db8::1/64" ];
        };
      }
      {
        a = {
          node = "spine3";
          interface = "eth 1";
          addresses = [ "192.0.2.16/31" ];
        };
        b = {
          node = "leaf1";
          interface = "eth3";
          addresses = [ "192.0.2.18/31" ];
        };
      }
      {
        a = {
          node = "leaf1";
          interface = "eth4";
          addresses = [ "198.51.100.1" ];
        };
        b = {
          node = "leaf1";
          interface = "eth5";
        };
        prefixes = [ "192.0.2.16/32" ];
      }
      {
        a = {
          node = "spine2";
          interface = "eth6";
          addresses = [ "192.0.2.16/31" ];
        };
        b = {
          node = "leaf1";
          interface = "eth6";
          addresses = [ "192.0.2.16/31" ];
        };
      }
    ];
  };
}
