# plasmacloud.network.prismnetIntegration: what PrismNET, the virtual network on
# OVN, needs of the hosts. Evaluated once for the whole cluster, and again in the
# NixOS configuration of each node.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  duration = import ../../lib/duration.nix { inherit lib; };
  inherit (config.plasmacloud) cluster network;
  cfg = network.prismnetIntegration;
  prismnet = import ../../lib/prismnet.nix { inherit lib; } config.plasmacloud;
  option = "plasmacloud.network.prismnetIntegration";

  file =
    what: name:
    mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/lib/secrets/ovn/${name}.pem";
      description = "File on every node with ${what}, in PEM. It is for root to read, and not in the Nix store.";
    };
  bridgeMappings =
    description:
    mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        external = "br-ex";
      };
      inherit description;
    };
  externalIds =
    description:
    mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        ovn-transport-zones = "rack1";
      };
      inherit description;
    };

  node = {
    options = {
      systemId = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "chassis-01";
        description = "Name of the node's chassis in OVN; null: the node's id.";
      };
      encapsulationIp = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "192.168.50.11";
        description = "Address of the node for tunnels, on one of its interfaces; null: the node's {option}`plasmacloud.cluster.nodes.<name>.ip`.";
      };
      bridgeMappings = bridgeMappings "Physical networks of this node, beside {option}`${option}.bridgeMappings`; one of the same name replaces the cluster's.";
      gateway = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Tell PrismNET that the node may be a gateway to physical networks (`enable-chassis-as-gw` of ovn-cms-options).";
      };
      externalIds = externalIds "Settings of this node, beside {option}`${option}.externalIds`; one of the same name replaces the cluster's.";
    };
  };

  ids = lib.attrNames cluster.nodes;
  isHost = address: ip.isUnicast address && !(ip.isLoopback address);
  isName = text: builtins.match "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?" text != null;

  tlsProblems = lib.concatMap (
    name:
    let
      path = cfg.tls.${name};
    in
    if path == null then
      [
        {
          assertion = false;
          message = "${option}.tls.${name}: not set, and TLS is on; name a file that every node has, or set ${option}.tls.enable = false on a network that nobody else reaches.";
        }
      ]
    else
      [
        {
          assertion = builtins.match "(/[A-Za-z0-9._@+=-]+)+" path != null;
          message = "${option}.tls.${name}: \"${path}\" is not the path of a file; write one such as /var/lib/secrets/ovn/key.pem, of letters, digits and . _ @ + = -.";
        }
        {
          assertion = !(lib.hasPrefix builtins.storeDir path);
          message = "${option}.tls.${name}: ${path} is in the Nix store, which everybody can read; bring the file to the nodes by other means, such as sops-nix or agenix, and name it by its path there.";
        }
      ]
  ) (lib.attrNames (removeAttrs cfg.tls [ "enable" ]));

  mappingProblems =
    name: mappings:
    lib.concatLists (
      lib.mapAttrsToList (network: bridge: [
        {
          assertion = isName network;
          message = "${name}: \"${network}\" cannot be the name of a physical network; use 1 to 63 letters, digits, '.', '_' and '-'.";
        }
        {
          assertion = builtins.match "[A-Za-z0-9._-]{1,15}" bridge != null;
          message = "${name}.${network}: \"${bridge}\" is not the name of a bridge; use 1 to 15 letters, digits, '.', '_' and '-', such as br-ex.";
        }
        {
          assertion = bridge != "br-int";
          message = "${name}.${network}: br-int is OVN's own bridge, which no physical network is on; name another bridge, such as br-ex.";
        }
      ]) mappings
    );

  externalIdProblems =
    name: settings:
    lib.concatLists (
      lib.mapAttrsToList (key: value: [
        {
          assertion = isName key && builtins.match "[^[:cntrl:]]+" value != null;
          message = "${name}: \"${key}\" needs a name of 1 to 63 letters, digits, '.', '_' and '-', and a value of one line that is not empty.";
        }
        {
          assertion = !(lib.elem key prismnet.reserved);
          message = "${name}: ${key} is set by other options of prismnetIntegration; use those.";
        }
      ]) settings
    );

  # { <canonical address> = whose it is; }
  nodeAddresses = lib.listToAttrs (
    lib.concatMap (
      id:
      map (address: lib.nameValuePair (ip.canonicalOrGiven address) id) (
        lib.filter (address: address != null) [
          cluster.nodes.${id}.ip
          cluster.nodes.${id}.ipv6
        ]
      )
    ) ids
  );
  vipAddresses = lib.listToAttrs (
    lib.concatMap (
      v:
      let
        host = ip.parseHost v.address;
      in
      lib.optional (host != null) (lib.nameValuePair host.address true)
    ) network.fiberlbBgp.vips
  );

  nodeProblems =
    id: n:
    let
      name = "${option}.nodes.${id}";
      encapsulation = prismnet.encapsulationIp id;
      owner = nodeAddresses.${encapsulation} or id;
    in
    if !(cluster.nodes ? ${id}) then
      [
        {
          assertion = false;
          message = "${name}: plasmacloud.cluster.nodes has no node \"${id}\"; name one that it has.";
        }
      ]
    else
      [
        {
          assertion = isName (prismnet.systemId id);
          message = "${name}.systemId: \"${prismnet.systemId id}\" cannot be the name of a chassis; use 1 to 63 letters, digits, '.', '_' and '-', with a letter or digit at both ends.";
        }
      ]
      ++ lib.optionals (n.encapsulationIp != null) [
        {
          assertion = isHost encapsulation;
          message = "${name}.encapsulationIp: \"${n.encapsulationIp}\" is not the address of a network interface; write one such as 192.168.50.11 or 2001:db8:50::11, without a prefix length.";
        }
        {
          assertion = owner == id;
          message = "${name}.encapsulationIp: ${encapsulation} is the address of node ${owner}; write one of ${id}'s own.";
        }
        {
          assertion = !(vipAddresses ? ${encapsulation});
          message = "${name}.encapsulationIp: ${encapsulation} is a VIP, which moves from node to node; write an address that ${id} keeps.";
        }
      ]
      ++ mappingProblems "${name}.bridgeMappings" n.bridgeMappings
      ++ externalIdProblems "${name}.externalIds" n.externalIds;

  repeated = of: lib.filterAttrs (_: same: lib.length same > 1) (lib.groupBy of ids);
  families = lib.groupBy (id: if ip.isIPv6 (prismnet.encapsulationIp id) then "v6" else "v4") ids;
in
{
  imports = [ ./cluster.nix ];

  options.plasmacloud.network.prismnetIntegration = {
    enable = lib.mkEnableOption ''
      what PrismNET, the virtual network on OVN, needs of a host: Open vSwitch
      ({option}`virtualisation.vswitch`), ovn-controller and its settings'';
    southbound = {
      addresses = mkOption {
        type = types.listOf types.str;
        default = map (id: cluster.nodes.${id}.ip) (
          lib.filter (id: cluster.nodes.${id}.role == "control-plane") ids
        );
        defaultText = lib.literalMD "{option}`ip` of every control-plane node";
        example = [
          "10.0.0.11"
          "2001:db8::11"
        ];
        description = "Addresses of OVN's southbound database, which PrismNET serves.";
      };
      port = mkOption {
        type = types.port;
        default = 6642;
        example = 16642;
        description = "TCP port of the southbound database.";
      };
    };
    tls = {
      enable = mkOption {
        type = types.bool;
        default = true;
        example = false;
        description = "Reach the southbound database over TLS, with a certificate of the node's own. Without it, who reaches the database's port owns the network.";
      };
      privateKey = file "the node's private key" "key";
      certificate = file "the node's certificate" "cert";
      caCertificate = file "the certificate of the authority that signed the database's" "ca";
    };
    encapsulation.type = mkOption {
      type = types.enum [
        "geneve"
        "vxlan"
      ];
      default = "geneve";
      example = "vxlan";
      description = "How packets travel between the nodes. VXLAN has less room for OVN's own data and so allows fewer networks and ports.";
    };
    bridgeMappings = bridgeMappings "The bridge that leads to a physical network, by the name that PrismNET has for the network. The bridges are not made from here.";
    monitorAll = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Let each node follow the whole southbound database instead of its own part: less work for the database, more for the node.";
    };
    probeInterval = mkOption {
      type = types.nullOr duration.type;
      default = null;
      example = "30s";
      description = "Silence on the connection to the southbound database after which a node asks whether it still works; null: OVN's default.";
    };
    externalIds = externalIds "Further settings of ovn-controller, in external_ids of the table Open_vSwitch.";
    openFirewall = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Let the cluster's nodes, and nobody else, reach this node's tunnels and, where {option}`southbound.addresses` has the node's address, the southbound database.";
    };
    nodes = mkOption {
      type = types.attrsOf (types.submodule node);
      default = { };
      example = lib.literalExpression ''
        {
          node01.gateway = true;
          node02.encapsulationIp = "192.168.50.12";
        }
      '';
      description = "What is special about a node, by its id.";
    };
  };

  config = lib.mkIf (cfg.enable && cluster.nodes != { }) {
    assertions = [
      {
        # The manifest needs none of these: a value of a wrong type shows here.
        assertion = builtins.deepSeq (map prismnet.externalIds ids) (lib.isBool cfg.openFirewall);
        message = "${option}.openFirewall: must be true or false.";
      }
      {
        assertion = cfg.southbound.addresses != [ ];
        message = "${option}.southbound.addresses: empty, so no node would find its network; set role = \"control-plane\" on a node, or write the addresses of OVN's southbound database.";
      }
      {
        assertion =
          cfg.probeInterval == null
          || duration.parse cfg.probeInterval >= 1000 && duration.parse cfg.probeInterval <= 86400000;
        message = "${option}.probeInterval: \"${toString cfg.probeInterval}\" is out of range; take 1s to 24h.";
      }
      {
        assertion = !(families ? v4 && families ? v6);
        message = "${option}.nodes: no tunnel joins an IPv4 address, as that of ${lib.head families.v4}, to an IPv6 address, as that of ${lib.head families.v6}; set encapsulationIp so that all are of one family.";
      }
    ]
    ++ map (address: {
      assertion = isHost address;
      message = "${option}.southbound.addresses: \"${address}\" is not the address of a host; write one such as 10.0.0.11 or 2001:db8::11, without a port.";
    }) cfg.southbound.addresses
    ++ lib.optionals cfg.tls.enable tlsProblems
    ++ mappingProblems "${option}.bridgeMappings" cfg.bridgeMappings
    ++ externalIdProblems "${option}.externalIds" cfg.externalIds
    ++ lib.concatLists (lib.mapAttrsToList nodeProblems cfg.nodes)
    ++ lib.mapAttrsToList (systemId: same: {
      assertion = false;
      message = "${option}.nodes: ${systemId} is the systemId of ${lib.concatStringsSep " and " same}; give each node its own (unset, it is the node's id).";
    }) (repeated prismnet.systemId)
    ++ lib.mapAttrsToList (address: same: {
      assertion = false;
      message = "${option}.nodes: ${address} is the encapsulationIp of ${lib.concatStringsSep " and " same}; give each node its own.";
    }) (repeated prismnet.encapsulationIp);
  };
}
