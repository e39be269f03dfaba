# What the NixOS configurations of a cluster's nodes come to, beside its manifest.
{
  lib,
  mkCluster,
  nixosModule,
}:
let
  cluster = mkCluster {
    modules = [ ../examples/three-nodes/cluster.nix ];
    nixosModules = [ ../examples/three-nodes/machine.nix ];
    nodeModules.node01 = {
      plasmacloud.deployer.enable = true;
      plasmacloud.deployer.openFirewall = true;
    };
  };
  manifest = cluster.plasmacloud.three-nodes;

  # Whether all that the manifest says is so; nix-nos has more options than it.
  says =
    whole: part:
    if builtins.isAttrs part then
      lib.all (name: says whole.${name} part.${name}) (lib.attrNames part)
    else if builtins.isList part then
      lib.length whole == lib.length part
      && lib.all (pair: says pair.fst pair.snd) (lib.zipLists whole part)
    else
      whole == part;
  # The parts of a node's configuration that differ from the manifest: none.
  differing =
    id: system:
    let
      inherit (system) config;
      node = manifest.data.nodes.${id};
      etc = name: config.environment.etc.${name}.text;
      same = {
        clusterConfig = etc "nixos/secrets/cluster-config.json" == node.clusterConfig;
        configHash =
          "sha256:${builtins.hashString "sha256" (etc "nixos/secrets/cluster-config.json")}"
          == node.configHash;
        announcer = builtins.fromJSON (etc "plasmacloud/announcer.json") == node.announcer;
        bgp = says config.nix-nos.bgp node.bgp;
        hostName = config.networking.hostName == id;
        builds = config.system.build.toplevel.type == "derivation";
      };
    in
    lib.attrNames (lib.filterAttrs (_: equal: !equal) same);

  node01 = cluster.nixosConfigurations.node01.config;

  stopsWithin =
    drainDelay:
    (mkCluster {
      modules = [
        ../examples/three-nodes/cluster.nix
        { plasmacloud.network.fiberlbBgp = { inherit drainDelay; }; }
      ];
    }).nixosConfigurations.node01.config.systemd.services.plasmacloud-announcer.serviceConfig.TimeoutStopSec;
  # A deployer with these settings, and the service that gets its files.
  deployerWith =
    settings:
    let
      inherit
        (lib.nixosSystem {
          system = "x86_64-linux";
          modules = [
            nixosModule
            ../examples/three-nodes/cluster.nix
            {
              boot.isContainer = true;
              plasmacloud.cluster.deployer.url = lib.mkForce "http://deployer:8443";
              plasmacloud.deployer = settings // {
                enable = true;
              };
            }
          ];
        })
        config
        ;
      service = config.systemd.services.plasmacloud-deployer;
    in
    {
      json = builtins.fromJSON config.environment.etc."plasmacloud/deployer.json".text;
      credentials = service.serviceConfig.LoadCredential or [ ];
      inherit (service) after wants;
      inherit (config) warnings;
      failures = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
    };
  # Fake packages have no hash worth keeping.
  readable =
    v:
    if builtins.isString v then
      lib.concatStringsSep "" (
        map (part: if builtins.isList part then "" else part) (
          builtins.split "/nix/store/[0-9a-z]{32}-" v
        )
      )
    else if builtins.isList v then
      map readable v
    else if builtins.isAttrs v then
      lib.mapAttrs (_: readable) v
    else
      v;
  units =
    config:
    lib.mapAttrs (_: s: {
      inherit (s)
        after
        wants
        requires
        partOf
        bindsTo
        wantedBy
        environment
        startLimitIntervalSec
        stopIfChanged
        ;
      serviceConfig = readable s.serviceConfig;
      reloads = lib.length s.reloadTriggers;
      restarts = lib.length s.restartTriggers;
    }) config.systemd.services;

  speaker =
    (lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        nixosModule
        {
          nix-nos = {
            topology.nodes.spine1 = {
              addresses = [
                "192.0.2.1"
                "2001:db8::1"
              ];
              asn = 64512;
            };
            bgp = {
              enable = true;
              asn = 64513;
              routerId = "192.0.2.10";
              openFirewall = true;
              peers = {
                spine1 = { };
                spine2 = {
                  address = "2001:DB8::2";
                  asn = 64512;
                  description = "right";
                  passive = true;
                  multihop = 3;
                };
              };
              announcements = [
                {
                  prefix = "203.0.113.0/24";
                  nextHop = "192.0.2.10";
                }
                {
                  prefix = "2001:DB8:1::/48";
                  nextHop = "2001:DB8::10";
                  communities = [
                    "64513:1"
                    "64513:1:2"
                    "64513:2"
                  ];
                  med = 5;
                  localPref = 200;
                }
              ];
            };
          };
        }
      ];
    }).config;

  # Those of the values that the deployer's option takes.
  taken =
    option: values:
    lib.filter (
      value:
      (builtins.tryEval (
        lib.getAttrFromPath (lib.splitString "." option) (lib.nixosSystem {
          system = "x86_64-linux";
          modules = [
            nixosModule
            { plasmacloud.deployer = lib.setAttrByPath (lib.splitString "." option) value; }
          ];
        }).config.plasmacloud.deployer
      )).success
    ) values;

  flake = (import ../../flake.nix).outputs {
    self = flake // {
      outPath = "/flake";
    };
    nixpkgs = {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ] (system: import ../offline/pkgs.nix { inherit lib system; });
    };
    nix-nos.nixosModules.default = ../nix-nos/modules;
  };
  runs = app: (readable app).program;

  failures =
    modules:
    map (a: a.message) (
      lib.filter (a: !a.assertion)
        (lib.nixosSystem {
          system = "x86_64-linux";
          modules = [
            nixosModule
            { boot.isContainer = true; }
          ]
          ++ modules;
        }).config.assertions
    );
in
{
  differing = lib.mapAttrs differing (removeAttrs cluster.nixosConfigurations [ "plasmacloud-iso" ]);

  node01 = {
    inherit (node01.networking.firewall) allowedTCPPorts;
    inherit (node01.boot) kernelModules;
    fiberlb = node01.services.fiberlb;
    topology = node01.nix-nos.topology;
    gobgpd = node01.services.gobgpd.settings;
    units = units node01;
    etc = lib.attrNames node01.environment.etc;
    deployer = builtins.fromJSON node01.environment.etc."plasmacloud/deployer.json".text;
  };

  apps = lib.mapAttrs (_: lib.mapAttrs (_: runs)) flake.apps;
  scripts = lib.mapAttrs (
    _: app: lib.splitString "\n" (readable { text = builtins.readFile app.program; }).text
  ) { inherit (flake.apps.x86_64-linux) demo plasmactl; };

  # Whether the deployer's file is the flake's manifest, byte for byte, with the
  # cluster's warnings and without those of the machine.
  deployerReadsTheManifest =
    let
      modules = [
        ../examples/three-nodes/cluster.nix
        { plasmacloud.cluster.nodes.node02.role = lib.mkForce "control-plane"; }
      ];
      machine = {
        plasmacloud.deployer.enable = true;
        warnings = [ "what NixOS warns of" ];
      };
      warned = mkCluster {
        inherit modules;
        nodeModules.node01 = machine;
      };
      outside = lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          nixosModule
          machine
        ]
        ++ modules;
      };
      same =
        system:
        system.config.environment.etc."plasmacloud/manifest.json".text
        == builtins.toJSON warned.plasmacloud.three-nodes + "\n";
    in
    {
      inherit (warned.plasmacloud.three-nodes) warnings;
      node01 = same warned.nixosConfigurations.node01;
      outside = same outside;
    };

  # With every option set.
  deployers = {
    bolt = deployerWith {
      listen = "10.0.0.10:8443";
      tls = {
        enable = true;
        certFile = "/var/lib/acme/deployer/fullchain.pem";
        keyFile = "/var/lib/acme/deployer/key.pem";
        clientCaFile = "/var/lib/secrets/clients.pem";
        clientAuth = "optional";
      };
      approval = "undeclared";
      tokens.required = true;
      tokens.joinFile = "/run/secrets/join";
      tokens.operatorsFile = "/run/secrets/operators";
      store.path = "/var/lib/plasmacloud-deployer/nodes.db";
      allowUnknownNodes = true;
      maxUnknownNodes = 7;
      provisioningTimeout = "1h30m";
      heartbeatInterval = "1m";
      heartbeatRate = 50;
      offlineAfter = "90s";
    };
    etcd = deployerWith {
      store.type = "etcd";
      store.etcd = {
        endpoints = [
          "https://10.0.0.21:2379"
          "https://[2001:db8::21]:2379"
        ];
        prefix = "/plasmacloud/one/";
        tls.caFile = "/var/lib/secrets/etcd-ca.pem";
        tls.certFile = "/var/lib/secrets/etcd.pem";
        tls.keyFile = "/var/lib/secrets/etcd.key";
        username = "plasmacloud";
        passwordFile = "/run/secrets/etcd-password";
        timeout = "5s";
        compactInterval = "0s";
      };
    };
    etcdAlone = deployerWith {
      store.type = "etcd";
      store.etcd.endpoints = [ "http://127.0.0.1:2379" ];
    };
  };

  # Each says what is missing.
  nobodyApproves =
    (deployerWith {
      approval = "undeclared";
      tls.clientAuth = "optional";
    }).failures;

  # By drain delay.
  stopsWithin = lib.genAttrs [
    "1ms"
    "15s"
    "15.001s"
    "1m"
    "2.5m"
    "24h"
  ] stopsWithin;

  # A stop has to last for the graceful shutdown, too; and ARP is the kernel's.
  leavesQuietly =
    let
      config =
        (mkCluster {
          modules = [
            ../examples/three-nodes/cluster.nix
            {
              plasmacloud.network.fiberlbBgp = {
                quietArp = true;
                gracefulShutdown = {
                  enable = true;
                  delay = "11s";
                };
              };
            }
          ];
        }).nixosConfigurations.node01.config;
    in
    {
      inherit (config.boot.kernel) sysctl;
      stopsWithin = config.systemd.services.plasmacloud-announcer.serviceConfig.TimeoutStopSec;
    };

  # Whatever a node announces, so that maintenance does not restart its announcer.
  stopsWithinInMaintenance =
    (mkCluster {
      modules = [
        ../examples/three-nodes/cluster.nix
        {
          plasmacloud = {
            cluster.nodes.node01.vips.announce = false;
            network.fiberlbBgp.vips = [
              {
                address = "203.0.113.30";
                drainDelay = "1m";
              }
            ];
          };
        }
      ];
    }).nixosConfigurations.node01.config.systemd.services.plasmacloud-announcer.serviceConfig.TimeoutStopSec;

  taken = lib.mapAttrs taken {
    listen = [
      ":8080"
      "10.0.0.10:65535"
      "[::1]:80"
      "[fe80::1%eth0]:80"
      "deployer.example.org:80"
      "8080"
      ":0"
      ":65536"
      ":99999"
      "a b:80"
      "::1:80x"
    ];
    "store.path" = [
      "/var/lib/plasmacloud-deployer/state.db"
      "/var/lib/plasmacloud-deployer/_a-1"
      "/var/lib/plasmacloud-deployer/"
      "/var/lib/plasmacloud-deployer/.."
      "/var/lib/plasmacloud-deployer/../x.db"
      "/var/lib/plasmacloud-deployer/a/x.db"
      "/var/lib/plasmacloud-deployer/.x.db"
      "/var/lib/x.db"
    ];
  };

  # What a cluster says of a router, and a node's own module beside it.
  peers =
    let
      inherit
        ((mkCluster {
          modules = [ ./good/peers.nix ];
          nixosModules = [ ../examples/three-nodes/machine.nix ];
          nodeModules.node01.nix-nos.bgp = {
            gracefulRestart.enable = false;
            peers.router1.timers.connectRetry = 5;
          };
        }).nixosConfigurations.node01)
        config
        ;
    in
    {
      failures = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
      peers = lib.mapAttrs (_: p: {
        inherit (p)
          address
          asn
          passwordFile
          timers
          gracefulRestart
          import
          ;
      }) config.nix-nos.bgp.peers;
    };

  # A user of nix-nos alone.
  speaker = {
    inherit (speaker.networking.firewall) allowedTCPPorts;
    gobgpd = speaker.services.gobgpd.settings;
    toml = lib.splitString "\n" (builtins.readFile speaker.environment.etc."nix-nos/gobgpd.toml".source);
    announcements = lib.splitString "\n" speaker.environment.etc."nix-nos/gobgp-announcements".text;
    units = lib.mapAttrs (_: u: removeAttrs u [ "serviceConfig" ]) (units speaker);
  };

  failures = {
    bgpUnset = failures [ { nix-nos.bgp.enable = true; } ];
    bgpWrong = failures [
      {
        nix-nos = {
          topology.nodes.spine1 = {
            addresses = [ "192.0.2.1/24" ];
            asn = 0;
          };
          bgp = {
            enable = true;
            asn = 65535;
            routerId = "node01";
            peers.a = {
              address = "a.example.org";
              asn = 23456;
            };
            announcements = [
              { prefix = "203.0.113.1/24"; }
              { prefix = "203.0.113.0"; }
              { prefix = "203.0.114.0/24"; }
              {
                prefix = "203.0.114.0/24";
                nextHop = "2001:db8::1";
                communities = [ "x" ];
              }
            ];
          };
        };
      }
    ];
    strangeNode = failures [
      ../examples/three-nodes/cluster.nix
      { plasmacloud.node.id = "node09"; }
    ];
    otherBackend = failures [
      ../examples/three-nodes/cluster.nix
      {
        plasmacloud.node.id = "node01";
        nix-nos.bgp.backend = "bird";
      }
    ];
    deployerAlone = failures [ { plasmacloud.deployer.enable = true; } ];
    deployerWrong = failures [
      ../examples/three-nodes/cluster.nix
      {
        plasmacloud.deployer = {
          enable = true;
          tls.enable = true;
          tls.certFile = "/etc/deployer.pem";
          store.etcd.endpoints = [ "https://10.0.0.21:2379" ];
          store.etcd.tls.keyFile = "/etc/etcd.key";
          store.etcd.username = "plasmacloud";
          provisioningTimeout = "721h";
          heartbeatInterval = "500ms";
          offlineAfter = "100ms";
        };
      }
    ];
    etcdNowhere = failures [
      ../examples/three-nodes/cluster.nix
      {
        plasmacloud.deployer.enable = true;
        plasmacloud.deployer.store.type = "etcd";
      }
    ];
    etcdInPlainText = failures [
      ../examples/three-nodes/cluster.nix
      {
        plasmacloud.deployer = {
          enable = true;
          store.type = "etcd";
          store.etcd = {
            endpoints = [
              "http://127.0.0.1:2379"
              "https://10.0.0.21:2379"
              "http://10.0.0.22:2379"
            ];
            tls.caFile = "/etc/etcd-ca.pem";
            username = "plasmacloud";
            passwordFile = "/run/secrets/etcd";
          };
        };
      }
    ];
    etcdOnThisMachine = failures [
      ../examples/three-nodes/cluster.nix
      {
        plasmacloud.deployer = {
          enable = true;
          store.type = "etcd";
          store.etcd = {
            endpoints = [
              "http://127.0.0.1:2379"
              "http://[::1]:2379"
            ];
            username = "plasmacloud";
            passwordFile = "/run/secrets/etcd";
          };
        };
      }
    ];
    secretsInTheStore = failures [
      ../examples/three-nodes/cluster.nix
      {
        plasmacloud = {
          node.id = "node01";
          deployer = {
            enable = true;
            tokens.joinFile = "${builtins.storeDir}/x-join";
            tokens.operatorsFile = "${builtins.storeDir}/x-operators";
            store.etcd.passwordFile = "${builtins.storeDir}/x-password";
            tls.keyFile = "${builtins.storeDir}/x-key";
          };
          phoneHome.tokenFile = "${builtins.storeDir}/x-token";
          phoneHome.keyFile = "${builtins.storeDir}/x-key";
          phoneHome.caFile = "/var/lib/secrets/ca.pem";
          phoneHome.services = lib.genList (i: "unit${toString i}.service") 65;
        };
      }
    ];
    phoneHomeAlone = failures [ { plasmacloud.phoneHome.enable = true; } ];
    clusterWrong = failures [
      ./bad/peer.nix
      {
        plasmacloud = {
          node.id = "node01";
          cluster.nodes.node03.ip = "10.0.0.300";
          network.fiberlbBgp.enable = true;
          network.fiberlbBgp.vips = [ "203.0.113.0/24" ];
        };
      }
    ];
    outsideTheCluster = failures [ ../examples/three-nodes/cluster.nix ];
  };
}
