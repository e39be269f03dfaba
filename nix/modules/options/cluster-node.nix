# A node of plasmacloud.cluster: its options, and what can be wrong with it alone.
{ lib, peer }:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  label = import ../../lib/label.nix;
  mac = import ../../lib/mac.nix;
  endpoint = import ../../lib/endpoint.nix { inherit lib; };

  isRouterId =
    text: ip.isIPv4 text && text != "0.0.0.0" && lib.head (ip.parse text).groups < 224;
  isDevice = text: builtins.match "/dev(/[0-9A-Za-z_.:+-]+)+" text != null && !(lib.hasInfix "/.." text);
in
{
  submodule = {
    options = {
      role = mkOption {
        type = types.enum [
          "control-plane"
          "worker"
        ];
        default = "worker";
        example = "control-plane";
        description = "Whether the node runs the cluster's control plane, or only its load.";
      };
      ip = mkOption {
        type = types.str;
        example = "10.0.0.11";
        description = "The address under which the other nodes reach this one.";
      };
      ipv6 = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "2001:db8:0:1::11";
        description = "IPv6 address of a node whose {option}`ip` is IPv4; the next hop of IPv6 VIPs.";
      };
      services = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "fiberlb" ];
        description = "The PlasmaCloud services that the node runs. VIPs are announced by the nodes with fiberlb.";
      };
      labels = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = {
          rack = "a1";
        };
        description = "What else is true of the node, to choose it by.";
      };
      site = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "berlin";
        description = "Where the node stands: one of {option}`plasmacloud.cluster.sites`, whose routers it peers with.";
      };
      identity = {
        macs = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "52:54:00:12:34:56" ];
          description = "Hardware addresses of its network cards, to tell the machine by before it has a name.";
        };
        serial = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "CZ3412X0PQ";
          description = "Serial number of the machine, as its firmware tells it.";
        };
      };
      vips = {
        announce = mkOption {
          type = types.bool;
          default = true;
          example = false;
          description = ''
            Whether the node may announce VIPs. Off, for maintenance, it
            withdraws all of them, and keeps its sessions with the routers.
          '';
        };
        exclude = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "203.0.113.10" ];
          description = "VIPs that the node does not announce, whatever {option}`plasmacloud.network.fiberlbBgp.vips` says.";
        };
      };
      deployment = {
        targetHost = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "node01.example.org";
          description = "Where its SSH server is reached by those who deploy to it: a host name or an address; null: the node's {option}`ip`, which is what a reader gets then.";
        };
        targetUser = mkOption {
          type = types.strMatching "[a-z_][a-z0-9_-]{0,31}";
          default = "root";
          example = "deploy";
          description = "The user to log in as.";
        };
        targetPort = mkOption {
          type = types.ints.between 1 65535;
          default = 22;
          example = 2222;
          description = "The port of the SSH server.";
        };
        tags = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "canary" ];
          description = "Names under which a tool that deploys takes several nodes at once.";
        };
        provision = {
          mode = mkOption {
            type = types.enum [
              "live"
              "install"
            ];
            default = "live";
            example = "install";
            description = ''
              What the ISO does on this machine. live: run the node from
              memory. install: install the node on a disk.
            '';
          };
          disk = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "/dev/disk/by-id/nvme-eui.0025385b21404321";
            description = "The disk to install on, which loses all that it has; by a name that is the same at every boot.";
          };
          script = mkOption {
            type = types.nullOr types.lines;
            default = null;
            example = lib.literalExpression "builtins.readFile ./layout.sh";
            description = ''
              Shell commands that partition and format the disk, `$DISK`, and
              mount the node's file systems below `$MNT`. Null: disko's, where
              the node's configuration has that module. They are in the
              world-readable Nix store: put no secret into them.
            '';
          };
        };
      };
      bgp = {
        routerId = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "10.0.0.11";
          description = "BGP router identifier; null: the node's {option}`ip`, where that is IPv4.";
        };
        peers = peer.option "Routers that only this node peers with; they come on top of those of its site and of {option}`plasmacloud.cluster.bgp.peers`, and win over one of the same name.";
      };
    };
  };

  # What a reader of the configuration gets for it.
  resolved =
    n:
    n
    // {
      deployment = n.deployment // {
        targetHost = if n.deployment.targetHost == null then n.ip else n.deployment.targetHost;
      };
    };

  # Of the node by that id.
  problems =
    id: n:
    let
      option = "plasmacloud.cluster.nodes.${id}";
      inherit (n.deployment) targetHost tags provision;
    in
    [
      {
        assertion = label.isHostLabel id;
        message = "${option}: \"${id}\" cannot be a host name; ${label.hostRule}.";
      }
      (peer.checkAddress "${option}.ip" n.ip)
    ]
    ++ lib.optionals (n.ipv6 != null) [
      {
        assertion = ip.isIPv6 n.ipv6 && ip.isUnicast n.ipv6;
        message = "${option}.ipv6: \"${n.ipv6}\" is not the IPv6 address of a host; write one such as 2001:db8::11, or null.";
      }
      {
        assertion = !(ip.isIPv6 n.ip);
        message = "${option}.ipv6: ip is an IPv6 address already; leave ipv6 at null.";
      }
    ]
    ++ lib.concatLists (
      lib.mapAttrsToList (key: value: [
        {
          assertion = label.isKey key;
          message = "${option}.labels: \"${key}\" cannot be the name of a label; ${label.keyRule}.";
        }
        {
          assertion = label.isValue value;
          message = "${option}.labels.${key}: \"${value}\" cannot be a label's value; ${label.valueRule}.";
        }
      ]) n.labels
    )
    ++ map (address: {
      assertion = mac.isMac address;
      message = "${option}.identity.macs: \"${address}\" is not the address of a network card; write one such as 52:54:00:12:34:56.";
    }) n.identity.macs
    ++ lib.optional (n.identity.serial != null) {
      assertion = builtins.match "[!-~]([ -~]{0,126}[!-~])?" n.identity.serial != null;
      message = "${option}.identity.serial: \"${n.identity.serial}\" is not a serial number; write 1 to 128 printable characters without a blank at either end, or null.";
    }
    ++ lib.optional (targetHost != n.ip) {
      assertion = ip.isUnicast targetHost || endpoint.isHostName targetHost;
      message = "${option}.deployment.targetHost: \"${targetHost}\" is neither a host name nor an address; write one such as node01.example.org or 10.0.0.11.";
    }
    ++ map (tag: {
      assertion = label.isKey tag;
      message = "${option}.deployment.tags: \"${tag}\" cannot be a tag; ${label.keyRule}.";
    }) tags
    ++ lib.optional (provision.disk != null) {
      assertion = isDevice provision.disk;
      message = "${option}.deployment.provision.disk: \"${provision.disk}\" is not the path of a disk; write one such as /dev/disk/by-id/nvme-eui.0025385b21404321.";
    }
    ++ lib.optional (provision.mode == "install") {
      assertion = provision.disk != null || provision.script != null;
      message = "${option}.deployment.provision: mode is \"install\", and neither disk nor script says how; set disk to what may be overwritten, or script to commands that lay a disk out.";
    }
    ++ lib.optional (n.bgp.routerId != null) {
      assertion = isRouterId n.bgp.routerId;
      message = "${option}.bgp.routerId: \"${n.bgp.routerId}\" is not an identifier; write it as an IPv4 address such as 10.0.0.11, neither 0.0.0.0 nor from 224.0.0.0 on.";
    }
    ++ peer.problems "${option}.bgp.peers" n.bgp.peers;
}
