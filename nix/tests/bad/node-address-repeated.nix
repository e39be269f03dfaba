{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes = {
    node04.ip = "10.0.0.12";
    node05 = {
      ip = "10.0.0.15";
      ipv6 = "2001:db8::0:5";
    };
    node06 = {
      ip = "10.0.0.16";
      ipv6 = "2001:DB8::5";
    };
  };
}
