# What is said of the machines themselves: where they stand, how they are known,
# installed and reached. A site's routers come between the cluster's and the node's.
{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    sites = {
      berlin.bgp.peers = {
        router1 = {
          address = "10.1.0.1";
          asn = 65010;
        };
        router2 = {
          address = "10.1.0.2";
          asn = 65010;
        };
      };
      lyon = { };
    };
    bgp = {
      asn = 65001;
      peers.router1 = {
        address = "10.0.0.1";
        asn = 65000;
      };
    };
    nodes = {
      node01 = {
        labels = {
          rack = "a1";
          "example.org/disk" = "";
        };
        site = "berlin";
        identity = {
          macs = [
            "52:54:00:AB:CD:01"
            "52-54-00-ab-cd-02"
          ];
          serial = "CZ 3412/X";
        };
        deployment = {
          targetHost = "2001:DB8::0:11";
          targetUser = "deploy";
          targetPort = 2222;
          tags = [ "canary" ];
          provision = {
            mode = "install";
            disk = "/dev/disk/by-id/nvme-eui.0025385b21404321";
          };
        };
        bgp.peers.router2 = {
          address = "10.1.0.3";
          asn = 65010;
        };
      };
      node02 = {
        ipv6 = "2001:DB8::0:12";
        site = "lyon";
        services = [ "fiberlb" ];
        deployment.targetHost = "node02.example.org";
        deployment.provision.script = ''
          parted --script /dev/vda mklabel gpt
          nixos-install
        '';
      };
    };
  };
  plasmacloud.network.fiberlbBgp.enable = true;
}
