# nix-nos.routing: static routes and forwarding, by systemd-networkd.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../lib/ip.nix;
  addressing = import ./interfaces-addressing.nix { inherit lib; };
  cfg = config.nix-nos.routing;
  devices = config.nix-nos.interfaces // config.nix-nos.vlans;

  hop = {
    gateway = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "192.0.2.1";
      description = "The router to send to, of the destination's family; null: the destination is on the link.";
    };
    interface = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "eth0";
      description = ''
        Where it goes out, one of {option}`nix-nos.interfaces` or
        {option}`nix-nos.vlans`; null: the one with an address in the gateway's
        network.
      '';
    };
    onLink = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Take the gateway as reachable although no address is in its network.";
    };
  };

  route = {
    options = hop // {
      destination = mkOption {
        type = types.str;
        example = "198.51.100.0/24";
        description = "The prefix, without host bits; 0.0.0.0/0 or ::/0 is the default route.";
      };
      type = mkOption {
        type = types.enum [
          "unicast"
          "blackhole"
          "unreachable"
          "prohibit"
        ];
        default = "unicast";
        example = "blackhole";
        description = ''
          unicast: forward. blackhole: drop. unreachable and prohibit: drop, and
          tell the sender that there is no way, or that it is not allowed.
        '';
      };
      nextHops = mkOption {
        type = types.listOf (
          types.submodule {
            options = hop // {
              weight = mkOption {
                type = types.ints.between 1 256;
                default = 1;
                example = 2;
                description = "Its share of the traffic, beside those of the other hops.";
              };
            };
          }
        );
        default = [ ];
        example = lib.literalExpression ''[ { gateway = "192.0.2.1"; } { gateway = "198.51.100.1"; } ]'';
        description = "Several routers that share the traffic, in place of {option}`gateway`.";
      };
      metric = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 100;
        description = "The lower one wins among routes to one destination; null: the kernel's default.";
      };
      table = mkOption {
        type = types.nullOr (types.ints.between 1 4294967295);
        default = null;
        example = 100;
        description = "Number of the routing table; null: the main table.";
      };
      source = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "192.0.2.10";
        description = "The own address that new connections over the route come from; null: the kernel chooses.";
      };
    };
  };

  # Devices with an address in whose network the gateway is.
  near =
    address:
    lib.filter (
      name:
      lib.any (
        text:
        let
          prefix = ip.parsePrefix text;
        in
        prefix != null && address != null && ip.contains prefix address
      ) devices.${name}.addresses
    ) (lib.attrNames devices);
  holders = addressing.holders devices;

  # The device that a hop leaves by, or null.
  deviceOf =
    h:
    let
      found = near (ip.parse h.gateway);
    in
    if h.interface != null then
      h.interface
    else if h.gateway != null && found != [ ] then
      lib.head found
    else
      null;

  hopProblems =
    option: destination: h:
    let
      gateway = ip.parse h.gateway;
      found = near gateway;
      known = h.interface == null || devices ? ${h.interface};
      device = devices.${toString h.interface} or null;
      # Addresses that are not known before boot.
      dynamic = device != null && (device.dhcp != "none" || device.acceptRA);
      linkLocal = ip.isLinkLocal h.gateway;
    in
    [
      {
        assertion = known;
        message = "${option}.interface: there is no interface \"${toString h.interface}\"; name one of nix-nos.interfaces or nix-nos.vlans.";
      }
      {
        assertion = h.gateway == null || gateway != null;
        message = "${option}.gateway: \"${toString h.gateway}\" is not an IP address; write one such as 192.0.2.1, without a prefix length.";
      }
      {
        assertion = h.gateway != null || h.interface != null;
        message = "${option}: says not where to; set gateway, interface or nextHops, or a type other than unicast.";
      }
      {
        assertion = h.gateway != null || !h.onLink;
        message = "${option}.onLink: is about the gateway, and there is none; set gateway, or leave onLink at false.";
      }
    ]
    ++ lib.optionals (gateway != null) (
      [
        {
          assertion = destination == null || gateway.family == destination.family;
          message = "${option}.gateway: ${h.gateway} is not of the destination's family, IPv${toString (destination.family or "")}; write an address of that family.";
        }
        {
          assertion = !(holders ? ${gateway.text});
          message = "${option}.gateway: ${h.gateway} is an address of this machine, on ${
            toString (holders.${gateway.text} or [ ])
          }; write that of the router.";
        }
        {
          assertion = !linkLocal || h.interface != null;
          message = "${option}.gateway: ${h.gateway} is link-local, and does not say on which interface; set interface.";
        }
      ]
      ++ lib.optional (known && !linkLocal && !h.onLink) {
        assertion = if h.interface == null then found != [ ] else dynamic || lib.elem h.interface found;
        message =
          if h.interface == null then
            "${option}.gateway: ${h.gateway} is in the network of no address of an interface; correct it, or set interface, and onLink where the router is on the link all the same."
          else
            "${option}.gateway: ${h.gateway} is in no network of ${h.interface}; correct it, or set onLink where the router is on the link all the same.";
      }
    );

  problems =
    option: r:
    let
      destination = ip.parsePrefix r.destination;
      source = ip.parse r.source;
      plain = r.gateway != null || r.interface != null || r.onLink;
    in
    [
      {
        assertion = destination != null && ip.isNetwork destination;
        message = "${option}.destination: \"${r.destination}\" is not a prefix, or has bits set behind its length; write one such as 198.51.100.0/24 or ::/0.";
      }
      {
        assertion = r.type == "unicast" || (r.gateway == null && r.nextHops == [ ] && !r.onLink);
        message = "${option}.type: ${r.type} goes nowhere; leave out gateway, nextHops and onLink.";
      }
      {
        assertion = r.nextHops == [ ] || !plain;
        message = "${option}.nextHops: stands in place of gateway, interface and onLink; leave those out.";
      }
      {
        assertion = r.source == null || (source != null && holders ? ${source.text});
        message = "${option}.source: \"${toString r.source}\" is no address of this machine; write one that an interface has.";
      }
      {
        assertion = source == null || destination == null || source.family == destination.family;
        message = "${option}.source: ${toString r.source} is not of the destination's family; write an address of that family.";
      }
    ]
    ++ (
      if r.type != "unicast" then
        lib.optional (r.interface != null) {
          assertion = devices ? ${r.interface};
          message = "${option}.interface: there is no interface \"${r.interface}\"; name one of nix-nos.interfaces or nix-nos.vlans, or leave it out.";
        }
      else if r.nextHops == [ ] then
        hopProblems option destination r
      else
        lib.concatLists (lib.imap1 (n: hopProblems "${option}.nextHops: entry ${toString n}" destination) r.nextHops)
        ++ lib.imap1 (n: h: {
          assertion = h.gateway != null;
          message = "${option}.nextHops: entry ${toString n} has no gateway; write the address of its router.";
        }) r.nextHops
    );

  named =
    n: r: "nix-nos.routing.static: entry ${toString n} (${r.destination})";
  same = lib.filter (found: lib.length found > 1) (
    lib.attrValues (
      lib.groupBy (
        r:
        let
          destination = ip.parsePrefix r.destination;
        in
        "${if destination == null then r.destination else destination.text} ${toString r.table} ${toString r.metric}"
      ) cfg.static
    )
  );

  # A route that goes nowhere belongs to the loopback.
  unitOf =
    r:
    let
      device =
        if r.type != "unicast" && r.interface == null then
          "lo"
        else if r.nextHops != [ ] then
          deviceOf (lib.head r.nextHops)
        else
          deviceOf r;
    in
    if device == null then "lo" else device;
  section =
    r:
    let
      destination = ip.parsePrefix r.destination;
      hopText =
        h:
        let
          device = deviceOf h;
        in
        ip.canonicalOrGiven h.gateway
        + lib.optionalString (device != null) "@${device}"
        + " ${toString h.weight}";
    in
    {
      Destination = if destination == null then r.destination else destination.text;
    }
    // lib.optionalAttrs (r.type != "unicast") { Type = r.type; }
    // lib.optionalAttrs (r.gateway != null) { Gateway = ip.canonicalOrGiven r.gateway; }
    // lib.optionalAttrs (r.onLink || lib.any (h: h.onLink) r.nextHops) { GatewayOnLink = true; }
    // lib.optionalAttrs (r.nextHops != [ ]) { MultiPathRoute = map hopText r.nextHops; }
    // lib.optionalAttrs (r.metric != null) { Metric = r.metric; }
    // lib.optionalAttrs (r.table != null) { Table = r.table; }
    // lib.optionalAttrs (r.source != null) { PreferredSource = ip.canonicalOrGiven r.source; };
in
{
  imports = [ ./vlans.nix ];

  options.nix-nos.routing = {
    static = mkOption {
      type = types.listOf (types.submodule route);
      default = [ ];
      example = lib.literalExpression ''
        [
          { destination = "0.0.0.0/0"; gateway = "192.0.2.1"; }
          { destination = "198.51.100.0/24"; type = "blackhole"; }
        ]
      '';
      description = "The static routes of the machine.";
    };
    forwarding = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Pass on packets that are for others, IPv4 and IPv6: the machine is a router.";
    };
  };

  config = lib.mkMerge [
    {
      assertions =
        lib.concatLists (lib.imap1 (n: r: problems (named n r) r) cfg.static)
        ++ map (found: {
          assertion = false;
          message = "nix-nos.routing.static: ${toString (lib.length found)} routes to ${(lib.head found).destination} have the same table and metric; give each its own metric, or make one route with nextHops of them.";
        }) same;
      boot.kernel.sysctl = lib.mkIf cfg.forwarding {
        "net.ipv4.conf.all.forwarding" = true;
        "net.ipv6.conf.all.forwarding" = true;
      };
    }
    (lib.mkIf (cfg.static != [ ]) (
      lib.mkMerge [
        addressing.networkd
        {
          systemd.network.networks = lib.mapAttrs' (
            device: routes:
            lib.nameValuePair "10-${device}" {
              # Of its own, where the device has no entry: the loopback.
              matchConfig.Name = device;
              networkConfig = lib.mkIf (device == "lo") { KeepConfiguration = "static"; };
              routes = map section routes;
            }
          ) (lib.groupBy unitOf cfg.static);
        }
      ]
    ))
  ];
}
