/*
  The machines of the NixOS VM tests: the nodes of the example cluster, its
  routers, and who uses its VIPs, all on one network with the example's addresses.
*/
{ nixosModule, cluster }:
let
  # Beside the address that the test driver gives, by which names resolve.
  attached = addresses: {
    virtualisation.vlans = [ 1 ];
    networking = {
      useDHCP = false;
      firewall.enable = false;
      interfaces.eth1 = {
        ipv4.addresses = map (address: {
          inherit address;
          prefixLength = 24;
        }) addresses.ipv4;
        ipv6.addresses = map (address: {
          inherit address;
          prefixLength = 64;
        }) addresses.ipv6;
      };
    };
  };
in
{
  # A node of the cluster, with the web server whose health decides on its VIPs.
  node =
    id:
    { config, ... }:
    let
      n = config.plasmacloud.cluster.nodes.${id};
    in
    {
      imports = [
        nixosModule
        cluster
        (attached {
          ipv4 = [ n.ip ];
          ipv6 = [ n.ipv6 ];
        })
      ];
      plasmacloud.node.id = id;
      services.nginx = {
        enable = true;
        virtualHosts.default = {
          default = true;
          listen = map (addr: {
            inherit addr;
            port = 8080;
          }) [
            "0.0.0.0"
            "[::]"
          ];
          locations = {
            "/".return = "200 'served by ${id}\\n'";
            "= /healthz".return = "200 'ok\\n'";
          };
        };
      };
    };

  # The registry of the cluster's nodes, by the name that their deployer.url has.
  deployer =
    { pkgs, ... }:
    {
      imports = [
        nixosModule
        cluster
        (attached {
          ipv4 = [ "10.0.0.100" ];
          ipv6 = [ ];
        })
      ];
      plasmacloud.deployer.enable = true;
      environment.systemPackages = [ pkgs.jq ];
    };

  # router1 of the example: it learns VIPs by BGP, and forwards to where they are.
  router =
    { pkgs, ... }:
    {
      imports = [
        (attached {
          ipv4 = [ "10.0.0.1" ];
          ipv6 = [ "2001:db8:0:1::1" ];
        })
      ];
      boot.kernel.sysctl = {
        "net.ipv4.ip_forward" = 1;
        "net.ipv6.conf.all.forwarding" = 1;
      };
      services.bird = {
        enable = true;
        package = pkgs.bird2;
        config = ''
          router id 10.0.0.1;
          protocol device { }
          protocol kernel k4 { ipv4 { import none; export all; }; }
          protocol kernel k6 { ipv6 { import none; export all; }; }
          protocol bgp nodes {
            local 10.0.0.1 as 65000;
            neighbor range 10.0.0.0/24 as 65001;
            dynamic name "node";
            ipv4 { import all; export none; };
            ipv6 { import all; export none; };
          }
        '';
      };
    };

  # Outside of the cluster, with a route to the VIPs.
  client = {
    imports = [
      (attached {
        ipv4 = [ "10.0.0.200" ];
        ipv6 = [ "2001:db8:0:1::200" ];
      })
    ];
    # The nodes are on its own network, so the router tells it of a shorter way to a
    # VIP. It would go on using that after the node has let go.
    boot.kernel.sysctl = {
      "net.ipv4.conf.all.accept_redirects" = 0;
      "net.ipv4.conf.eth1.accept_redirects" = 0;
      "net.ipv6.conf.eth1.accept_redirects" = 0;
    };
    networking.interfaces.eth1 = {
      ipv4.routes = [
        {
          address = "203.0.113.0";
          prefixLength = 24;
          via = "10.0.0.1";
        }
      ];
      ipv6.routes = [
        {
          address = "2001:db8:0:2::";
          prefixLength = 64;
          via = "2001:db8:0:1::1";
        }
      ];
    };
  };
}
