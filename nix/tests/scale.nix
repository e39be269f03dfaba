# A cluster of so many nodes and VIPs, as the manifest's length.
{
  libPath,
  nodes,
  vips,
}:
let
  lib = import (libPath + "/default.nix");
  node = i: {
    name = "node${toString i}";
    value = {
      role = if i <= 3 then "control-plane" else "worker";
      ip = "10.0.${toString (i / 250)}.${toString (1 + lib.mod i 250)}";
      ipv6 = "2001:db8:0:1::${lib.toHexString i}";
      services = [ "fiberlb" ];
    };
  };
  router = last: {
    address = "10.255.0.${toString last}";
    asn = 65000;
  };
  cluster = import ../lib/mk-cluster.nix {
    inherit lib;
    nixosModule = { };
  };
  manifest =
    (cluster {
      modules = [
        {
          plasmacloud = {
            cluster = {
              name = "large";
              nodes = lib.listToAttrs (map node (lib.range 1 nodes));
              bgp.asn = 65001;
              bgp.peers.router1 = router 1;
              bgp.peers.router2 = router 2;
            };
            network.fiberlbBgp = {
              enable = true;
              vips = map (i: {
                address = "203.0.${toString (i / 250)}.${toString (1 + lib.mod i 250)}";
                checks = [
                  {
                    type = "http";
                    url = "http://127.0.0.1:8080/healthz";
                  }
                ];
              }) (lib.range 1 vips);
            };
          };
        }
      ];
    }).plasmacloud.large;
in
lib.throwIf (manifest.data == null) (lib.concatLines manifest.failedAssertions) (
  builtins.stringLength (builtins.toJSON manifest)
)
