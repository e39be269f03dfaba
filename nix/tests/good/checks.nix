# Every type of check with all that it takes, and what a VIP makes of their answers.
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
    };
    network.fiberlbBgp = {
      enable = true;
      vips = [
        {
          address = "203.0.113.10";
          require = 2;
          startDelay = "30s";
          damping = {
            penalty = 500;
            halfLife = "2m";
          };
          checks = [
            {
              type = "http";
              url = "https://127.0.0.1:8443/healthz";
              status = [
                204
                "300-399"
              ];
              body = "ready";
              bodyRegex = "^(ok|ready)";
              headers = {
                Accept = "text/plain";
                X-Probe = "a: \"b\"";
              };
              redirects = 10;
              host = "www.example.org";
              caFile = "/etc/ssl/service-ca.pem";
              fastInterval = "200ms";
            }
            {
              type = "tcp";
              address = "127.0.0.1:80";
            }
            {
              type = "grpc";
              address = "[::1]:443";
              service = "shop.Cart";
              tls = true;
              host = "cart";
              caFile = "/etc/ssl/service-ca.pem";
            }
            {
              type = "exec";
              command = [
                "/run/current-system/sw/bin/test"
                "-e"
                ""
              ];
            }
            {
              type = "systemd";
              unit = "shop@a\\x2db.service";
            }
          ];
        }
        {
          address = "203.0.113.20";
          require = "any";
          damping = { };
          checks = [
            {
              type = "grpc";
              address = "127.0.0.1:81";
            }
            {
              type = "http";
              url = "http://127.0.0.1:82/";
            }
          ];
        }
      ];
    };
  };
}
