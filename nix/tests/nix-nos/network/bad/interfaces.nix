{
  nix-nos.interfaces = {
    "a name that is too long".mtu = 1500;
    eth0 = {
      addresses = [
        "192.0.2.10"
        "192.0.2.0/24"
        "192.0.2.255/24"
        "2001:db8::10"
        "eth0"
        "2001:db8::1/64"
        "2001:DB8:0::1/64"
      ];
      mtu = 1000;
      mac = "52:54:00:00:00:01";
    };
    eth1 = {
      addresses = [ "2001:db8::1/128" ];
      mac = "52:54:00:00:00:01";
    };
    eth2.addresses = [ "10.0.0.1/24" ];
    br0.bridge.members = [
      "eth2"
      "eth3"
    ];
    br1 = {
      bridge.members = [
        "eth3"
        "br1"
      ];
      mac = "52:54:00:00:00:02";
    };
    both = {
      bridge = { };
      bond.members = [ ];
    };
  };
}
