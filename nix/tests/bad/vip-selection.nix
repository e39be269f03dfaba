{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster.bgp.asn = 65001;
    cluster.nodes.node02.labels.rack = "a1";
    network.fiberlbBgp = {
      enable = true;
      vips = [
        # node02 has it, and no fiberlb.
        {
          address = "203.0.113.10";
          labels.rack = "a1";
        }
        {
          address = "203.0.113.20";
          roles = [ "worker" ];
        }
        {
          address = "203.0.113.30";
          nodes = [ "node01" ];
          roles = [ "control-plane" ];
        }
        {
          address = "203.0.113.40";
          labels.rack = "a 1";
        }
      ];
    };
  };
}
