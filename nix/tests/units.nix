/*
  The units of a node with everything on it, as files that systemd reads:
  { <unit> = text; }. vmtests/units_test.go has systemd look at them.
*/
{ lib, mkCluster }:
let
  inherit
    (mkCluster {
      modules = [
        ../examples/three-nodes/cluster.nix
        {
          plasmacloud.network.prismnetIntegration = {
            enable = true;
            tls.privateKey = "/run/secrets/ovn/key.pem";
            tls.certificate = "/run/secrets/ovn/cert.pem";
            tls.caCertificate = "/run/secrets/ovn/ca.pem";
          };
        }
      ];
      nodeModules.node01.plasmacloud = {
        deployer = {
          enable = true;
          tls.enable = true;
          tls.certFile = "/var/lib/acme/deployer/fullchain.pem";
          tls.keyFile = "/var/lib/acme/deployer/key.pem";
          tokens.joinFile = "/run/secrets/join-tokens";
        };
        phoneHome.tokenFile = "/run/secrets/join-token";
        phoneHome.caFile = "/etc/ssl/deployer-ca.pem";
        phoneHome.extraArgs = [
          "--log-level"
          "100% $debug"
        ];
      };
    })
    nixosConfigurations
    ;
  inherit (nixosConfigurations.node01.config.systemd) services;
  # gobgpd as a user of nix-nos alone has it, with passwords.
  speaker =
    (lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        ../nix-nos/modules/bgp
        {
          nix-nos.bgp = {
            enable = true;
            asn = 64513;
            routerId = "192.0.2.10";
            announcements = [ { prefix = "203.0.113.0/24"; } ];
            peers.router1 = {
              address = "192.0.2.1";
              asn = 64512;
              passwordFile = "/run/secrets/router1";
            };
          };
        }
      ];
    }).config.systemd.services;
  unit = import ./unit.nix { inherit lib; };
in
lib.mapAttrs (_: unit) (
  services
  // {
    inherit (speaker) gobgpd-announcements;
    gobgpd-passwords = speaker.gobgpd;
  }
)
