/*
  The units of a node with everything on it, as files that systemd reads:
  { <unit> = text; }. NixOS writes them with more around it (PATH, locale), but
  with these lines. vmtests/units_test.go has systemd look at them.
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

  # Packages have another hash in every build.
  withoutHash =
    text:
    lib.concatStringsSep "/nix/store/" (
      lib.filter builtins.isString (builtins.split "/nix/store/[0-9a-z]{32}-" text)
    );
  value =
    v: if builtins.isBool v then (if v then "true" else "false") else withoutHash (toString v);
  section =
    name: settings:
    "[${name}]\n"
    + lib.concatStrings (
      lib.concatLists (
        lib.mapAttrsToList (key: v: map (one: "${key}=${value one}\n") (lib.toList v)) settings
      )
    );
  units = key: names: lib.optionalAttrs (names != [ ]) { ${key} = lib.concatStringsSep " " names; };

  unit =
    s:
    section "Unit" (
      {
        Description = s.description;
      }
      // lib.optionalAttrs (s.documentation != [ ]) {
        Documentation = lib.concatStringsSep " " s.documentation;
      }
      // units "After" s.after
      // units "Before" s.before
      // units "BindsTo" s.bindsTo
      // units "PartOf" s.partOf
      // units "Requires" s.requires
      // units "Wants" s.wants
      // lib.optionalAttrs (s.startLimitIntervalSec != null) {
        StartLimitIntervalSec = s.startLimitIntervalSec;
      }
      // s.unitConfig
    )
    + "\n"
    + section "Service" (
      lib.optionalAttrs (s.environment != { }) {
        Environment = lib.mapAttrsToList (name: v: "${name}=${v}") s.environment;
      }
      // s.serviceConfig
    )
    + lib.optionalString (s.wantedBy != [ ]) "\n${section "Install" (units "WantedBy" s.wantedBy)}";
in
lib.mapAttrs (_: unit) (
  services
  // {
    inherit (speaker) gobgpd-announcements;
    gobgpd-passwords = speaker.gobgpd;
  }
)
