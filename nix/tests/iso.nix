# What the ISO of a cluster comes to: its table of nodes, its units, who logs in.
{ lib, mkCluster }:
let
  modules = [
    ../examples/three-nodes/cluster.nix
    {
      plasmacloud.cluster.nodes = {
        node01 = {
          identity.macs = [
            "52:54:00:00:00:01"
            "52-54-00-00-00-AA"
          ];
          deployment.provision = {
            mode = "install";
            disk = "/dev/vda";
          };
        };
        node02 = {
          identity.serial = "CZ3412X0PQ";
          deployment.provision = {
            mode = "install";
            disk = "/dev/nvme0n1";
            script = ''
              sgdisk --clear "$DISK"
              mount "$DISK"1 "$MNT"
            '';
          };
        };
      };
    }
  ];
  # As the disko module has it.
  disko = {
    system.build.diskoScript = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-disko";
    disko.devices.disk.main.device = lib.mkDefault "/dev/vda";
  };
  isoOf =
    more: changes:
    (mkCluster (
      {
        inherit modules;
        nixosModules = [ ../examples/three-nodes/machine.nix ];
        nodeModules.node01 = disko;
      }
      // more
    )).nixosConfigurations.plasmacloud-iso.extendModules
      { modules = [ { plasmacloud.iso = changes; } ]; };

  all = isoOf { } { sshKeys = [ "ssh-ed25519 AAAA operator" ]; };
  one = isoOf { } {
    node = "node02";
    passwordHash = "$6$salt$hash";
  };
  overNetwork = isoOf {
    modules = modules ++ [ { plasmacloud.iso.installFlake = "github:example/my-cluster"; } ];
    # With a flake no system of a node is looked at.
    nodeModules.node01 = throw "node01 is evaluated";
  } { };
  longName = isoOf {
    modules = modules ++ [ { plasmacloud.cluster.name = lib.mkForce "a-cluster-with-quite-a-long-name"; } ];
  } { };
  withModule = isoOf {
    isoModules = [
      {
        networking.hostName = "rescue";
        image.baseName = lib.mkOverride 40 "rescue";
      }
    ];
  } { };

  # Fake packages have no hash worth keeping.
  unhashed =
    text:
    lib.concatStrings (
      lib.filter lib.isString (builtins.split "/nix/store/[0-9a-z]{32}-" (builtins.unsafeDiscardStringContext text))
    );
  readable =
    x:
    if lib.isString x then
      unhashed x
    else if lib.isAttrs x then
      lib.mapAttrs (_: readable) x
    else if lib.isList x then
      map readable x
    else
      x;
  table = iso: readable iso.config.plasmacloud.iso.table;
  access = iso: {
    inherit (iso.config.services) getty openssh;
    users = lib.mapAttrs (_: u: removeAttrs u [ "isNormalUser" ]) iso.config.users.users;
  };
  failures =
    iso: map (a: a.message) (lib.filter (a: !a.assertion) iso.config.assertions);
in
{
  all = {
    inherit (all.config) warnings;
    inherit (all.config.image) filePath;
    inherit (all.config.isoImage) volumeID;
    inherit (all.config.networking) hostName useDHCP;
    etc = lib.attrNames all.config.environment.etc;
    clusterConfig = all.config.environment.etc."nixos/secrets/cluster-config.json".source;
    builds = all.config.system.build.isoImage.type == "derivation";
    # What the deployer expects of each node.
    sameClusterConfigs =
      map (n: n.cluster_config) (table all).nodes
      == map (n: n.clusterConfig) (lib.attrValues all.config.plasmacloud.iso.manifest.data.nodes);
    access = access all;
    writesTheTable =
      all.config.environment.etc."plasmacloud/nodes.json".text
      == builtins.toJSON all.config.plasmacloud.iso.table + "\n";
    table = map (n: removeAttrs n [ "cluster_config" ]) (table all).nodes;
    layout = lib.splitString "\n" (
      unhashed (builtins.readFile (lib.elemAt all.config.plasmacloud.iso.table.nodes 1).install.PARTITION)
    );
    units = lib.mapAttrs (_: u: {
      inherit (u)
        after
        wants
        requires
        wantedBy
        path
        startLimitIntervalSec
        ;
      environment = readable u.environment;
      unitConfig = readable u.unitConfig;
      serviceConfig = readable u.serviceConfig;
    }) all.config.systemd.services;
    phoneHome = lib.splitString "\n" (
      unhashed (builtins.readFile all.config.systemd.services.plasmacloud-provision.environment.PHONE_HOME)
    );
  };

  one = {
    inherit (one.config) warnings;
    inherit (one.config.image) filePath;
    access = access one;
    nodes = map (n: removeAttrs n [ "cluster_config" ]) (table one).nodes;
  };

  overNetwork = {
    inherit (overNetwork.config) warnings;
    install = map (n: n.install) (table overNetwork).nodes;
  };
  withModule = {
    inherit (withModule.config.image) filePath;
    inherit (withModule.config.networking) hostName;
  };
  longName = longName.config.isoImage.volumeID;

  failures = {
    right = failures all;
    strangeNode = failures (isoOf { } { node = "node09"; });
    noLayout = failures (isoOf { nodeModules = { }; } { });
    otherDisk = failures (isoOf {
      nodeModules.node01 = {
        imports = [ disko ];
        disko.devices.disk.main.device = "/dev/sda";
      };
    } { });
    notThisOne = failures (isoOf { nodeModules = { }; } { node = "node02"; });
    clusterWrong = failures (
      isoOf { modules = modules ++ [ { plasmacloud.cluster.nodes.node03.ip = lib.mkForce "10.0.0.300"; } ]; } { }
    );
    nodeOfItsName = (builtins.tryEval (
      (isoOf { modules = modules ++ [ { plasmacloud.cluster.nodes.plasmacloud-iso.ip = "10.0.0.99"; } ]; } { }).config.image.baseName
    )).success;
  };
}
