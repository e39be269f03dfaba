# What can be said of a VIP, and who announces which: by role, by label, by name,
# and not while a node is in maintenance.
{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster = {
      bgp = {
        asn = 65001;
        peers.router1 = {
          address = "10.0.0.1";
          asn = 65000;
        };
      };
      nodes = {
        node01.labels.rack = "a1";
        node02 = {
          services = [ "fiberlb" ];
          labels.rack = "a1";
          vips.exclude = [ "203.0.113.20/32" ];
        };
        node03 = {
          ip = "10.0.0.13";
          services = [ "fiberlb" ];
          labels.rack = "a2";
          vips.announce = false;
        };
        # No fiberlb, so that only a VIP that names it is announced there.
        node04 = {
          ip = "10.0.0.14";
          labels.rack = "a1";
        };
      };
    };
    network.fiberlbBgp = {
      enable = true;
      metrics = {
        enable = true;
        address = null;
        openFirewall = true;
      };
      gracefulShutdown = {
        enable = true;
        delay = "30s";
        onHealth = true;
        by = "med";
      };
      pools = [
        "203.0.113.0/26"
        "2001:db8:0:2::/64"
      ];
      vips = [
        "203.0.113.10"
        {
          address = "203.0.113.20";
          labels.rack = "a1";
          prepend = 255;
          drainDelay = "30s";
          hold = "route";
        }
        {
          address = "203.0.113.30";
          roles = [ "worker" ];
          labels.rack = "a1";
          hold = "none";
        }
        {
          address = "203.0.113.40";
          nodes = [
            "node03"
            "node04"
          ];
          prepend = 1;
        }
        # Only the node in maintenance would.
        {
          address = "203.0.113.50";
          roles = [ "worker" ];
          labels.rack = "a2";
        }
      ];
    };
  };
}
