# Several modules say what one cluster is: lists add up, and priorities decide.
{
  imports = [
    ../base.nix
    {
      plasmacloud.cluster.bgp.asn = 65001;
      plasmacloud.cluster.nodes.node01.services = [ "flaredb" ];
      plasmacloud.network.fiberlbBgp.vips = [ "203.0.113.20" ];
    }
    (
      { lib, config, ... }:
      {
        plasmacloud.cluster.deployer.url = lib.mkDefault "http://${config.plasmacloud.cluster.nodes.node01.ip}:8080";
        plasmacloud.cluster.bgp.peers.router1 = {
          address = lib.mkDefault "10.0.0.250";
          asn = 65000;
        };
      }
    )
  ];
  plasmacloud.network.fiberlbBgp.enable = true;
  plasmacloud.network.fiberlbBgp.vips = [ "203.0.113.10" ];
  plasmacloud.cluster.bgp.peers.router1.address = "10.0.0.1";
}
