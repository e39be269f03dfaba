# A router has every option of nix-nos.bgp.peers; the manifest has those that are
# not at their default. A peer by the name of a node takes address and AS from it.
{
  imports = [ ../base.nix ];
  plasmacloud = {
    cluster = {
      bgp = {
        asn = 65001;
        peers = {
          router1 = {
            address = "10.0.0.1";
            asn = 65000;
            passwordFile = "/run/secrets/bgp-router1";
            timers.hold = 9;
            ttlSecurity = 1;
            maxPrefixes = 10;
            import = "none";
          };
          router2 = {
            address = "10.0.0.2";
            asn = 65000;
            gracefulRestart.enable = false;
            families = [ "ipv4" ];
            import = [
              "0.0.0.0/0"
              {
                prefixes = [ "10.0.0.0/8" ];
                orLonger = true;
                localPref = 200;
              }
            ];
          };
        };
      };
      nodes.node01.bgp.peers.node02.localAddress = "10.0.0.11";
    };
    network.fiberlbBgp.enable = true;
  };
}
