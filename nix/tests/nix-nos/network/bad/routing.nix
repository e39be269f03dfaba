{
  nix-nos = {
    interfaces.eth0.addresses = [
      "192.0.2.10/24"
      "2001:db8::10/64"
    ];
    interfaces.eth1.addresses = [ "198.51.100.10/24" ];
    routing.static = [
      {
        destination = "10.1.0.1/16";
        gateway = "192.0.2.1";
      }
      {
        destination = "10.2.0.0/16";
        gateway = "203.0.113.1";
      }
      {
        destination = "10.3.0.0/16";
        gateway = "192.0.2.1";
        interface = "eth1";
      }
      {
        destination = "10.4.0.0/16";
        gateway = "2001:db8::1";
      }
      {
        destination = "10.5.0.0/16";
        gateway = "192.0.2.10";
      }
      {
        destination = "2001:db8:6::/48";
        gateway = "fe80::1";
      }
      { destination = "10.7.0.0/16"; }
      {
        destination = "10.8.0.0/16";
        interface = "eth9";
      }
      {
        destination = "10.9.0.0/16";
        type = "blackhole";
        gateway = "192.0.2.1";
      }
      {
        destination = "10.10.0.0/16";
        gateway = "192.0.2.1";
        nextHops = [ { interface = "eth0"; } ];
      }
      {
        destination = "10.11.0.0/16";
        gateway = "192.0.2.1/24";
        source = "10.0.0.1";
      }
      {
        destination = "10.12.0.0/16";
        gateway = "192.0.2.1";
        source = "2001:db8::10";
      }
      {
        destination = "10.12.0.0/16";
        gateway = "192.0.2.2";
      }
      {
        destination = "10.13.0.0/16";
        interface = "eth0";
        onLink = true;
      }
    ];
  };
}
