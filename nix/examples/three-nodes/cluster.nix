{
  plasmacloud.cluster = {
    name = "three-nodes";

    nodes = {
      node01 = {
        role = "control-plane";
        ip = "10.0.0.11";
        ipv6 = "2001:db8:0:1::11";
        services = [ "fiberlb" ];
      };
      node02 = {
        role = "worker";
        ip = "10.0.0.12";
        ipv6 = "2001:db8:0:1::12";
        services = [ "fiberlb" ];
      };
      node03 = {
        role = "worker";
        ip = "10.0.0.13";
        ipv6 = "2001:db8:0:1::13";
        services = [ "fiberlb" ];
      };
    };
    bootstrap.initialPeers = [ "node01" ];

    bgp = {
      asn = 65001;
      peers = {
        router1 = {
          address = "10.0.0.1";
          asn = 65000;
        };
        router2 = {
          address = "10.0.0.2";
          asn = 65000;
        };
      };
    };
  };

  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      # Announced by a node while its web server answers.
      {
        address = "203.0.113.10";
        communities = [ "65001:100" ];
        checks = [
          {
            type = "http";
            url = "http://127.0.0.1:8080/healthz";
          }
        ];
      }
      # Announced as long as a node is up.
      "203.0.113.20"
      {
        address = "2001:db8:0:2::10";
        checks = [
          {
            type = "tcp";
            address = "[::1]:8080";
          }
        ];
      }
    ];
  };
}
