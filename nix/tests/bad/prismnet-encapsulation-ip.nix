{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.cluster.nodes = {
    node03.ip = "10.0.0.13";
    node04.ip = "10.0.0.14";
    node05.ip = "10.0.0.15";
  };
  plasmacloud.network = {
    fiberlbBgp = {
      enable = true;
      vips = [ "203.0.113.10" ];
    };
    prismnetIntegration.nodes = {
      node01.encapsulationIp = "eth0";
      node02.encapsulationIp = "10.0.0.11";
      node03.encapsulationIp = "203.0.113.10";
      node04.encapsulationIp = "127.0.0.1";
      node05.encapsulationIp = "192.168.50.15/24";
    };
  };
}
