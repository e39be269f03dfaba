{
  nix-nos = {
    interfaces.eth0.mtu = 1400;
    interfaces.clash = { };
    vlans = {
      a = {
        id = 0;
        interface = "eth0";
      };
      b = {
        id = 4095;
        interface = "eth9";
      };
      c = {
        id = 7;
        interface = "eth0";
        mtu = 1500;
        addresses = [ "2001:db8::1" ];
      };
      d = {
        id = 7;
        interface = "eth0";
      };
      e = {
        id = 8;
        interface = "lo";
      };
      clash = {
        id = 9;
        interface = "eth0";
      };
    };
  };
}
