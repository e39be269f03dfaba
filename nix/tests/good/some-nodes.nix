# VIPs by node: by service, by name, nowhere. Two control planes and an
# announcer without a peer give warnings, not failures.
{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster = {
      bgp.asn = 65001;
      nodes = {
        node02.role = "control-plane";
        node02.bgp.peers.router2 = {
          address = "10.0.0.2";
          asn = 65000;
        };
        node03.ip = "10.0.0.13";
      };
      bootstrap.initialPeers = [ "node02" ];
    };
    network.fiberlbBgp = {
      enable = true;
      vips = [
        "203.0.113.10"
        {
          address = "203.0.113.20/32";
          nodes = [
            "node02"
            "node01"
          ];
        }
        {
          address = "203.0.113.30";
          nodes = [ ];
        }
      ];
    };
  };
}
