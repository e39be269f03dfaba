# plasmacloud.network: the VIPs of a cluster and who announces them. Evaluated
# once for the whole cluster, and again in the NixOS configuration of each node.
{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  community = import ../../nix-nos/lib/community.nix;
  cluster = config.plasmacloud.cluster;
  cfg = config.plasmacloud.network.fiberlbBgp;
  duration = import ../../lib/duration.nix { inherit lib; };
  endpoint = import ../../lib/endpoint.nix { inherit lib; };
  label = import ../../lib/label.nix;
  plainSubmodule = import ../../lib/plain-submodule.nix { inherit lib; };
  option = "plasmacloud.network.fiberlbBgp.vips";

  mkDuration =
    default: description:
    mkOption {
      inherit (duration) type;
      inherit default;
      example = "500ms";
      inherit description;
    };

  check = {
    options = {
      type = mkOption {
        type = types.enum [
          "http"
          "tcp"
          "grpc"
          "exec"
          "systemd"
        ];
        example = "http";
        description = ''
          http: the URL answers with a status of success. tcp: the address accepts
          a connection. grpc: the server there says SERVING (grpc.health.v1).
          exec: a program ends with status 0. systemd: a unit is active.
        '';
      };
      url = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "http://127.0.0.1:8080/healthz";
        description = "What an http check asks for.";
      };
      address = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "127.0.0.1:80";
        description = "What a tcp or grpc check connects to, as HOST:PORT.";
      };
      status = mkOption {
        type = types.listOf (types.either (types.ints.between 100 599) types.str);
        default = [ ];
        example = [
          204
          "300-399"
        ];
        description = "The statuses that are good for an http check, numbers and ranges; [ ]: 200-299.";
      };
      body = mkOption {
        type = types.str;
        default = "";
        example = "ready";
        description = "Text that the first 64 KiB of an http check's answer must have.";
      };
      bodyRegex = mkOption {
        type = types.str;
        default = "";
        example = "^(ok|ready)";
        description = "Regular expression (RE2) that the same must match; checked on the node.";
      };
      headers = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = {
          Accept = "text/plain";
        };
        description = "Headers that an http check sends. They are in the world-readable Nix store: no secrets.";
      };
      redirects = mkOption {
        type = types.ints.between 0 10;
        default = 0;
        example = 1;
        description = "How many redirects an http check follows, on the same host.";
      };
      host = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "www.example.org";
        description = "The name that an http or grpc check asks for, and verifies, in place of the one that it connects to.";
      };
      caFile = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/etc/ssl/service-ca.pem";
        description = "File on the node with who signs the certificate of an http or grpc check's server; null: it is not verified.";
      };
      tls = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether a grpc check uses TLS.";
      };
      service = mkOption {
        type = types.str;
        default = "";
        example = "shop.Cart";
        description = "What a grpc check asks for; empty: the server as a whole.";
      };
      command = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [
          "/run/current-system/sw/bin/test"
          "-e"
          "/run/shop/ready"
        ];
        description = ''
          The program that an exec check runs, by absolute path, and its
          arguments; there is no shell. It runs as the announcer's user, in its
          hardened unit. They are in the world-readable Nix store: no secrets.
        '';
      };
      unit = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "nginx.service";
        description = "The unit that a systemd check asks for.";
      };
      interval = mkDuration "2s" "Time from one try to the next.";
      fastInterval = mkOption {
        type = types.nullOr duration.type;
        default = null;
        example = "200ms";
        description = "The same while the check changes: after an answer that contradicts what it is, until rise or fall; null: interval.";
      };
      timeout = mkDuration "1s" "How long one try may take.";
      rise = mkOption {
        type = types.ints.between 1 1000;
        default = 2;
        example = 3;
        description = "Tries in a row that must succeed until the check is up.";
      };
      fall = mkOption {
        type = types.ints.between 1 1000;
        default = 3;
        example = 2;
        description = "Tries in a row that must fail until the check is down.";
      };
    };
  };

  points =
    default: description:
    mkOption {
      type = types.ints.between 1 1000000;
      inherit default;
      example = 1500;
      inherit description;
    };
  damping = {
    options = {
      penalty = points 1000 "What one time down costs.";
      suppress = points 2500 "Penalty from which on the VIP is not announced.";
      reuse = points 750 "Penalty below which it is announced again.";
      halfLife = mkDuration "1m" "Time in which the penalty halves.";
    };
  };

  vip = {
    options = {
      address = mkOption {
        type = types.str;
        example = "203.0.113.10";
        description = "The address that clients connect to, IPv4 or IPv6.";
      };
      nodes = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = [ "node01" ];
        description = ''
          The nodes that announce it, with or without fiberlb among their
          services; null: those with fiberlb, of {option}`roles` and with
          {option}`labels`.
        '';
      };
      roles = mkOption {
        type = types.listOf (
          types.enum [
            "control-plane"
            "worker"
          ]
        );
        default = [ ];
        example = [ "worker" ];
        description = "Of the nodes with fiberlb, those of one of these roles announce it; [ ]: of any.";
      };
      labels = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = {
          rack = "a1";
        };
        description = "Of the nodes with fiberlb, those with all of these labels announce it.";
      };
      checks = mkOption {
        type = types.listOf (plainSubmodule check);
        default = [ ];
        example = lib.literalExpression ''[ { type = "tcp"; address = "127.0.0.1:80"; } ]'';
        description = "A node announces the VIP while these are up there, as many as {option}`require` says; with none, while its announcer runs.";
      };
      require = mkOption {
        type = types.either (types.enum [
          "all"
          "any"
        ]) (types.ints.between 1 16);
        default = "all";
        example = "any";
        description = "How many of the checks must be up: all, any one, or a number.";
      };
      startDelay = mkOption {
        type = types.nullOr duration.type;
        default = null;
        example = "30s";
        description = ''
          How long the checks must be up before a node announces the VIP after its
          announcer's start. What is announced already stays. null: no time.
        '';
      };
      damping = mkOption {
        type = types.nullOr (plainSubmodule damping);
        default = null;
        example = {
          halfLife = "2m";
        };
        description = "Keeps a VIP that goes up and down from being announced, after the idea of RFC 2439; { } takes the defaults, null is off.";
      };
      communities = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [
          "65001:100"
          "65001:1:2"
        ];
        description = "BGP communities of the route, standard (RFC 1997) or large (RFC 8092).";
      };
      med = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 100;
        description = "BGP multi-exit discriminator; null: none is sent.";
      };
      localPref = mkOption {
        type = types.nullOr types.ints.u32;
        default = null;
        example = 200;
        description = "BGP local preference towards internal peers; null: the speaker's default.";
      };
      prepend = mkOption {
        type = types.ints.between 0 255;
        default = 0;
        example = 3;
        description = ''
          How often our AS number comes once more in the path to external peers,
          so that routers prefer others' paths. Nothing is prepended on a node
          with an internal peer, which would take that for a loop.
        '';
      };
      drainDelay = mkOption {
        type = types.nullOr duration.type;
        default = null;
        example = "30s";
        description = "Time from withdrawing the VIP to letting go of it; null: {option}`plasmacloud.network.fiberlbBgp.drainDelay`.";
      };
      hold = mkOption {
        type = types.enum [
          "address"
          "route"
          "none"
        ];
        default = "address";
        example = "route";
        description = ''
          How a node takes packets to the VIP. address: as an address of
          {option}`plasmacloud.network.fiberlbBgp.holdInterface`. route: by a
          route of the kernel's local table over that interface, which is quicker
          for thousands of VIPs. none: something else takes them.
        '';
      };
    };
  };

  # The canonical text, of an IPv4 address also where it is written as IPv6.
  unmapped =
    text:
    let
      canonical = ip.canonicalOrGiven text;
      bare = lib.removePrefix "::ffff:" canonical;
    in
    if ip.isIPv4 bare then bare else canonical;

  durationProblem = name: text: {
    assertion = duration.parse text >= 1 && duration.parse text <= 86400000;
    message = "${name}: \"${text}\" is out of range; take 1ms to 24h.";
  };
  timeProblems = v: c: [
    (durationProblem "${option}: the interval of a check of ${v.address}" c.interval)
    (durationProblem "${option}: the timeout of a check of ${v.address}" c.timeout)
    {
      assertion = duration.parse c.timeout <= duration.parse c.interval;
      message = "${option}: the timeout of a check of ${v.address}, ${c.timeout}, is longer than its interval, ${c.interval}; make it at most that.";
    }
  ]
  ++ lib.optionals (c.fastInterval != null) [
    (durationProblem "${option}: the fastInterval of a check of ${v.address}" c.fastInterval)
    {
      assertion = duration.parse c.fastInterval <= duration.parse c.interval;
      message = "${option}: the fastInterval of a check of ${v.address}, ${c.fastInterval}, is longer than its interval, ${c.interval}; make it at most that.";
    }
  ];
  checkTypes = import ../../lib/check-types.nix;
  # What says what a check asks, and an example of it.
  checkExamples = {
    http = "http://127.0.0.1:8080/healthz";
    tcp = "127.0.0.1:80";
    grpc = "127.0.0.1:80";
    exec = ''[ "/run/current-system/sw/bin/test" "-e" "/run/ready" ]'';
    systemd = "nginx.service";
  };
  dialProblems =
    v: name: value: isUrl: example:
    let
      host = if isUrl then endpoint.hostOfUrl value else endpoint.hostOf value;
      own = ip.parseHost v.address;
    in
    [
      {
        assertion = host != null;
        message = "${name}: \"${value}\" is not ${if isUrl then "a URL" else "HOST:PORT"}; write one such as ${example}.";
      }
      {
        assertion = host == null || own == null || unmapped host != own.address;
        message = "${name} dials the VIP itself, which a node holds only while the check is up; dial 127.0.0.1, or the node's own address.";
      }
    ];
  isStatus =
    entry:
    let
      range = builtins.match "([1-5][0-9][0-9])(-([1-5][0-9][0-9]))?" (toString entry);
      last = lib.elemAt range 2;
    in
    range != null && (last == null || lib.head range <= last);
  isHeader =
    key: value:
    builtins.match "[-!#$%&'*+.^_`|~0-9A-Za-z]+" key != null
    && lib.stringLength value <= 4096
    && builtins.match "[ -~]*" value != null
    && !(lib.elem (lib.toLower key) checkTypes.reservedHeaders);
  uses = c: name: lib.elem name checkTypes.options.${c.type};
  checkProblems =
    v: c:
    let
      key = checkTypes.target.${c.type};
      value = c.${key};
      example = checkExamples.${c.type};
      name = "${option}: the ${c.type} check of ${v.address}";
      unused = lib.filter (other: !(uses c other) && c.${other} != checkTypes.unset.${other}) (
        lib.attrNames checkTypes.unset
      );
      isSecure = if c.type == "http" then c.url != null && lib.hasPrefix "https:" c.url else c.tls;
    in
    if value == checkTypes.unset.${key} then
      [
        {
          assertion = false;
          message = "${name} has no ${key}; set ${key} to one such as ${example}.";
        }
      ]
    else
      map (other: {
        assertion = false;
        message = "${name} takes no ${other}; remove it, or change its type.";
      }) unused
      ++ lib.optionals (key == "url" || key == "address") (dialProblems v name value (key == "url") example)
      ++ lib.optionals (c.type == "http") (
        map (entry: {
          assertion = isStatus entry;
          message = "${name}: \"${toString entry}\" is no HTTP status; write one such as 204, or a range such as \"200-299\".";
        }) c.status
        ++ lib.mapAttrsToList (key: value: {
          assertion = isHeader key value;
          message = "${name} cannot send the header \"${key}\"; take another name, and a value of one line, without secrets (for Host, there is host).";
        }) c.headers
        ++ [
          {
            assertion = lib.length c.status <= 16;
            message = "${name} has ${toString (lib.length c.status)} statuses; keep at most 16.";
          }
          {
            assertion =
              lib.length (lib.attrNames c.headers) <= 32
              && lib.length (lib.unique (map lib.toLower (lib.attrNames c.headers))) == lib.length (lib.attrNames c.headers);
            message = "${name} has more than 32 headers, or one of them twice in other letters; remove some.";
          }
          {
            assertion = lib.stringLength c.body <= 1000 && lib.stringLength c.bodyRegex <= 1000;
            message = "${name}: body or bodyRegex is too long; take at most 1000 bytes each.";
          }
        ]
      )
      ++ lib.optionals (uses c "host") [
        {
          assertion = c.host == null || endpoint.isHostName c.host;
          message = "${name}: \"${toString c.host}\" is no name of a host; write one such as www.example.org, without a port.";
        }
        {
          assertion = c.caFile == null || lib.hasPrefix "/" c.caFile;
          message = "${name}: \"${toString c.caFile}\" is no absolute path; write one such as /etc/ssl/service-ca.pem.";
        }
        {
          assertion = c.caFile == null || isSecure;
          message = "${name} has a caFile, and uses no TLS; use https or tls, or remove it.";
        }
      ]
      ++ lib.optional (c.type == "grpc") {
        assertion = lib.stringLength c.service <= 1000;
        message = "${name}: service is too long; take at most 1000 bytes.";
      }
      ++ lib.optionals (c.type == "exec") [
        {
          assertion = lib.hasPrefix "/" (lib.head c.command);
          message = "${name}: \"${lib.head c.command}\" is no absolute path, and there is no shell that would look for it; write one such as /run/current-system/sw/bin/test.";
        }
        {
          assertion =
            lib.length c.command <= 64 && lib.stringLength (lib.concatStringsSep " " c.command) < 4096;
          message = "${name} has a command that is too long; take at most 64 words and 4095 bytes.";
        }
      ]
      ++ lib.optional (c.type == "systemd") {
        assertion =
          lib.stringLength c.unit <= 255
          &&
            builtins.match "[0-9A-Za-z:_.\\@-]+\\.(service|socket|target|device|mount|automount|swap|timer|path|slice|scope)" c.unit
            != null;
        message = "${name}: \"${c.unit}\" is no name of a unit; write one with its suffix, such as ${example}.";
      };

  vipProblems =
    v:
    let
      host = ip.parseHost v.address;
    in
    [
      {
        assertion = host != null && ip.isGlobal host.address;
        message =
          if host == null then
            "${option}: \"${v.address}\" is not a single IP address; write one such as 203.0.113.10 or 2001:db8::10."
          else
            "${option}: \"${v.address}\" cannot be announced; take a unicast address that is neither loopback nor link-local.";
      }
      {
        assertion = host == null || inAPool host.address;
        message = "${option}: ${v.address} lies in none of pools, ${lib.concatStringsSep ", " cfg.pools}; take an address of one, or add its prefix to pools.";
      }
      {
        assertion = host == null || !(nodeAddresses ? ${host.address});
        message = "${option}: ${v.address} is the address of node ${
          nodeAddresses.${host.address} or ""
        }; a VIP needs an address of its own.";
      }
      {
        assertion = host == null || !(routerAddresses ? ${host.address});
        message = "${option}: ${v.address} is the address of the router ${
          routerAddresses.${host.address} or ""
        }; a VIP needs an address of its own.";
      }
    ]
    ++ map (id: {
      assertion = cluster.nodes ? ${id};
      message = "${option}: ${v.address} names the node \"${id}\", which plasmacloud.cluster.nodes does not have; name one that it has.";
    }) (if v.nodes == null then [ ] else v.nodes)
    ++ map (text: {
      assertion = community.isStandard text || community.isLarge text;
      message = "${option}: \"${text}\" of ${v.address} is not a community; ${community.rule}.";
    }) v.communities
    ++ lib.mapAttrsToList (key: value: {
      assertion = label.isKey key && label.isValue value;
      message = "${option}: the label ${key} = \"${value}\" of ${v.address} can be no node's; of a name, ${label.keyRule}; of a value, ${label.valueRule}.";
    }) v.labels
    ++ [
      {
        assertion = v.nodes == null || v.roles == [ ] && v.labels == { };
        message = "${option}: ${v.address} names its nodes, and selects by roles or labels too; leave nodes at null, or roles and labels empty.";
      }
    ]
    ++ lib.optional (v.drainDelay != null) (
      durationProblem "${option}: the drainDelay of ${v.address}" v.drainDelay
    )
    ++ lib.optional (v.startDelay != null) (
      durationProblem "${option}: the startDelay of ${v.address}" v.startDelay
    )
    ++ lib.optionals (v.damping != null) [
      (durationProblem "${option}: the halfLife of the damping of ${v.address}" v.damping.halfLife)
      {
        assertion = v.damping.reuse < v.damping.suppress;
        message = "${option}: the damping of ${v.address} has reuse ${toString v.damping.reuse} and suppress ${toString v.damping.suppress}; make reuse less than that.";
      }
    ]
    ++ (
      let
        need =
          if v.require == "all" then
            0
          else if v.require == "any" then
            1
          else
            v.require;
      in
      [
        {
          assertion = need <= lib.length v.checks;
          message = "${option}: ${v.address} requires ${toString need} checks up, and has ${toString (lib.length v.checks)}; make it at most that.";
        }
      ]
    )
    ++ lib.concatMap (c: checkProblems v c ++ timeProblems v c) v.checks
    ++ lib.optional (lib.length v.checks > 16) {
      assertion = false;
      message = "${option}: ${v.address} has ${toString (lib.length v.checks)} checks; keep at most 16.";
    };

  nodeAddresses = lib.listToAttrs (
    lib.concatLists (
      lib.mapAttrsToList (
        id: of:
        map (address: lib.nameValuePair address id) (
          lib.filter (address: address != null) [
            of.ip
            of.ipv6
          ]
        )
      ) data.addresses
    )
  );

  # Which router has an address, as the option that says so.
  routerAddresses =
    let
      of =
        option: peers:
        lib.concatLists (
          lib.mapAttrsToList (
            name: p:
            let
              address = ip.canonical p.address;
            in
            lib.optional (address != null) (lib.nameValuePair address "${option}.${name}")
          ) peers
        );
    in
    lib.listToAttrs (
      of "plasmacloud.cluster.bgp.peers" cluster.bgp.peers
      ++ lib.concatLists (
        lib.mapAttrsToList (name: s: of "plasmacloud.cluster.sites.${name}.bgp.peers" s.bgp.peers) cluster.sites
      )
      ++ lib.concatLists (
        lib.mapAttrsToList (id: n: of "plasmacloud.cluster.nodes.${id}.bgp.peers" n.bgp.peers) cluster.nodes
      )
    );

  # { <router identifier> = [ id ]; } of the speakers, given or taken from ip.
  routerIds = lib.groupBy (
    id:
    let
      n = cluster.nodes.${id};
    in
    if n.bgp.routerId != null then n.bgp.routerId else n.ip
  ) (lib.filter (id: cluster.nodes.${id}.bgp.routerId != null || ip.isIPv4 cluster.nodes.${id}.ip) data.speakers);
  # Nodes that share their ip are told so already.
  sharedRouterIds = lib.filterAttrs (
    _: ids: lib.length ids > 1 && lib.any (id: cluster.nodes.${id}.bgp.routerId != null) ids
  ) routerIds;

  repeated = lib.filterAttrs (_: same: lib.length same > 1) (
    lib.groupBy (v: v.prefix) (
      lib.filter (host: host != null) (map (v: ip.parseHost v.address) cfg.vips)
    )
  );

  # What only a speaker needs of its node.
  speakerProblems =
    id:
    let
      n = cluster.nodes.${id};
      peers = data.peersOf n;
      own = data.addresses.${id};
      name = "plasmacloud.cluster.nodes.${id}";
      hasIPv6 =
        n.ipv6 != null || ip.isIPv6 n.ip || lib.any (p: ip.isIPv6 p.address) (lib.attrValues peers);
      hasIPv4 = ip.isIPv4 n.ip || lib.any (p: ip.isIPv4 p.address) (lib.attrValues peers);
      ownFamilies = families.${id} or { };
    in
    lib.mapAttrsToList (
      peer: p:
      let
        address = ip.canonical p.address;
        isOwn = n.bgp.peers ? ${peer};
        from =
          if isOwn then
            name
          else if n.site != null && cluster.sites ? ${n.site} && cluster.sites.${n.site}.bgp.peers ? ${peer} then
            "plasmacloud.cluster.sites.${n.site}"
          else
            "plasmacloud.cluster";
      in
      {
        assertion = address == null || address != own.ip && address != own.ipv6;
        message = "${from}.bgp.peers.${peer}.address: ${toString p.address} is an address of ${id} itself, which would peer with itself; write the router's${
          if isOwn then "" else ", or move the peer into bgp.peers of the other nodes"
        }.";
      }
    ) peers
    ++ [
      {
        assertion = n.bgp.routerId != null || !(ip.isIPv6 n.ip);
        message = "${name}.bgp.routerId: not set, and ip is an IPv6 address; take a number that no other node has, written as an IPv4 address.";
      }
      {
        assertion = !(ownFamilies ? v6) || hasIPv6;
        message = "${name}.ipv6: not set, so the IPv6 VIP ${ownFamilies.v6 or ""} has no next hop there; set it, or peer over IPv6.";
      }
      {
        assertion = !(ownFamilies ? v4) || hasIPv4;
        message = "${name}.ip: not IPv4, so the IPv4 VIP ${ownFamilies.v4 or ""} has no next hop there; set an IPv4 ip, or peer over IPv4.";
      }
    ];
  pools = map (text: {
    inherit text;
    prefix = ip.parsePrefix text;
  }) cfg.pools;
  poolProblems = lib.imap0 (
    index: pool:
    if pool.prefix == null || !(ip.isNetwork pool.prefix) then
      {
        assertion = false;
        message = "plasmacloud.network.fiberlbBgp.pools: \"${pool.text}\" is not a prefix, or has bits set behind its length; write one such as 203.0.113.0/24 or 2001:db8:0:2::/64.";
      }
    else
      let
        within = lib.filter (other: other.prefix != null && ip.contains other.prefix pool.prefix) (
          lib.take index pools ++ lib.drop (index + 1) pools
        );
      in
      {
        assertion = within == [ ];
        message = "plasmacloud.network.fiberlbBgp.pools: ${pool.text} lies in ${(lib.head within).text}; keep one of them.";
      }
  ) pools;
  inAPool =
    address:
    cfg.pools == [ ]
    || lib.any (pool: pool.prefix != null && ip.contains pool.prefix (ip.parse address)) pools;

  # What a VIP asks of its nodes by roles and labels, in words.
  selectionOf =
    v:
    lib.concatStringsSep " and " (
      lib.optional (v.roles != [ ]) "one of the roles ${lib.concatStringsSep ", " v.roles}"
      ++ lib.mapAttrsToList (key: value: "the label ${key} = \"${value}\"") v.labels
    );
  vipPrefixes = lib.genAttrs (map (v: v.host.prefix) data.vips) (_: true);
  exclusionProblems =
    id: n:
    map (
      text:
      let
        host = ip.parseHost text;
      in
      {
        assertion = host != null && vipPrefixes ? ${host.prefix};
        message = "plasmacloud.cluster.nodes.${id}.vips.exclude: \"${text}\" is none of ${option}; write the address of one of them.";
      }
    ) n.vips.exclude;
  data = import ../../lib/cluster-data.nix { inherit lib; } config.plasmacloud;
  families = lib.genAttrs data.speakers (
    id:
    lib.foldl' (
      found: v: found // { ${"v${toString v.host.family}"} = v.host.address; }
    ) { } (data.vipsOf id)
  );
in
{
  imports = [
    ./cluster.nix
    ./prismnet.nix
  ];

  options.plasmacloud.network = {
    fiberlbBgp = {
      enable = lib.mkEnableOption "announcing FiberLB's VIPs over BGP";
      vips = mkOption {
        type = types.listOf (
          types.coercedTo types.str (address: { inherit address; }) (plainSubmodule vip)
        );
        default = [ ];
        example = lib.literalExpression ''
          [
            "203.0.113.10"
            {
              address = "203.0.113.20";
              checks = [ { type = "http"; url = "http://127.0.0.1:8080/healthz"; } ];
            }
          ]
        '';
        description = "The VIPs, each an address or a set with more about it.";
      };
      pools = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [
          "203.0.113.0/24"
          "2001:db8:0:2::/64"
        ];
        description = "The prefixes that VIPs are taken from: one outside of them is an error. [ ]: any address may be a VIP.";
      };
      holdInterface = mkOption {
        type = types.strMatching "[^/[:space:]]{1,15}";
        default = "lo";
        example = "br0";
        description = "The network interface that holds the VIPs on a node.";
      };
      holdLifetime = mkOption {
        type = types.nullOr duration.type;
        default = null;
        example = "1h";
        description = ''
          After how long the address of a VIP ends that no announcer renews any
          more: what remains where a node's announcer dies, and neither starts
          again nor is released. At least 5m, and only where no VIP's `hold` is
          route. null: it never ends, as the route that is announced for it.
        '';
      };
      quietArp = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Whether nodes leave ARP requests for VIPs unanswered that come in over
          another interface than {option}`plasmacloud.network.fiberlbBgp.holdInterface`,
          and never name a VIP as the sender of one. For VIPs of a network that the
          nodes are in themselves, where who answers would get all traffic (direct
          server return). Sets arp_ignore to 1 and arp_announce to 2 for all interfaces.
        '';
      };
      drainDelay = mkDuration "5s" "Time from withdrawing a VIP to letting go of its address, for what is still on its way.";
      gracefulShutdown = {
        enable = lib.mkEnableOption "asking routers to prefer other paths, by the community GRACEFUL_SHUTDOWN (RFC 8326) and, towards peers of the cluster's own AS, local preference 0, before a VIP is withdrawn that is drained by an operator, leaves the configuration, or whose announcer stops";
        by = mkOption {
          type = types.enum [
            "community"
            "med"
          ];
          default = "community";
          example = "med";
          description = ''
            How they are asked: `community` is GRACEFUL_SHUTDOWN with local
            preference 0, as above; `med` is the highest MULTI_EXIT_DISC,
            4294967295, for routers that do not heed the community, or do not
            take it. Routers compare MEDs between paths from one AS, such as
            those of the cluster's nodes.
          '';
        };
        delay = mkDuration "10s" "Time from asking to withdrawing.";
        onHealth = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = "Whether to do so also when a check of the VIP is down, with traffic still coming to it meanwhile.";
        };
      };
      reconcileInterval = mkDuration "10s" "Time between two comparisons of what should be announced with what is; events start one at once.";
      metrics = {
        enable = lib.mkEnableOption "the announcer's metrics for Prometheus";
        address = mkOption {
          type = types.nullOr types.str;
          default = "127.0.0.1";
          example = "::";
          description = "The address to serve them on; null: each node's {option}`ip`.";
        };
        port = mkOption {
          type = types.ints.between 1 65535;
          default = 9479;
          example = 9480;
          description = "The TCP port to serve them on.";
        };
        openFirewall = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = "Whether to open that port in the firewall.";
        };
      };
    };
  };

  config = lib.mkIf (cfg.enable && cluster.nodes != { }) {
    assertions = [
      {
        assertion = cluster.bgp.asn != null;
        message = "plasmacloud.cluster.bgp.asn: not set, and plasmacloud.network.fiberlbBgp.enable needs it; set the AS number of the cluster, such as 65001.";
      }
      (durationProblem "plasmacloud.network.fiberlbBgp.drainDelay" cfg.drainDelay)
      (durationProblem "plasmacloud.network.fiberlbBgp.gracefulShutdown.delay" cfg.gracefulShutdown.delay)
      (durationProblem "plasmacloud.network.fiberlbBgp.reconcileInterval" cfg.reconcileInterval)
    ]
    ++ lib.optionals (cfg.holdLifetime != null) (
      [
        {
          assertion =
            duration.parse cfg.holdLifetime >= 300000 && duration.parse cfg.holdLifetime <= 86400000;
          message = "plasmacloud.network.fiberlbBgp.holdLifetime: \"${cfg.holdLifetime}\" is out of range; take 5m to 24h, in a third of which the next announcer can start.";
        }
      ]
      ++ map (v: {
        assertion = v.hold != "route";
        message = "${option}: ${v.address} is held by a route, which does not end by itself, and plasmacloud.network.fiberlbBgp.holdLifetime is set; hold it as \"address\", or leave holdLifetime at null.";
      }) cfg.vips
    )
    ++ poolProblems
    ++ lib.concatMap vipProblems cfg.vips
    ++ map (v: {
      assertion = v.candidates != [ ] || selectionOf v == "";
      message = "${option}: no node with fiberlb has ${selectionOf v}, which ${v.address} asks for; change its roles and labels, or the nodes'.";
    }) data.vips
    ++ lib.concatLists (lib.mapAttrsToList exclusionProblems cluster.nodes)
    ++ lib.optional (cfg.metrics.address != null) {
      assertion = ip.isAddress cfg.metrics.address;
      message = "plasmacloud.network.fiberlbBgp.metrics.address: \"${cfg.metrics.address}\" is not an IP address; write one such as 127.0.0.1 or ::, or null for each node's own.";
    }
    ++ lib.mapAttrsToList (prefix: same: {
      assertion = false;
      message = "${option}: ${prefix} is listed ${toString (lib.length same)} times; keep one of them.";
    }) repeated
    ++ lib.mapAttrsToList (routerId: ids: {
      assertion = false;
      message = "plasmacloud.cluster.nodes: ${routerId} is the BGP router identifier of ${lib.concatStringsSep " and " ids}, and routers tell speakers apart by it; set bgp.routerId so that each has its own (unset, it is ip).";
    }) sharedRouterIds
    ++ lib.concatMap speakerProblems data.speakers;

    warnings =
      map (
        v:
        if v.candidates == [ ] then
          "${option}: no node announces ${v.host.address}; add \"fiberlb\" to the services of a node, or set its nodes."
        else
          "${option}: no node announces ${v.host.address}, since vips.announce or vips.exclude of ${lib.concatStringsSep ", " v.candidates} keeps it from that; end the maintenance of one of them."
      ) (lib.filter (v: v.nodes == [ ]) data.vips)
      ++ (
        let
          prepended = map (v: v.host.address) (lib.filter (v: v.prepend > 0) data.vips);
          internal = lib.filter (
            id: lib.any (p: p.asn == cluster.bgp.asn) (lib.attrValues (data.peersOf cluster.nodes.${id}))
          ) data.speakers;
        in
        lib.optional (prepended != [ ] && internal != [ ])
          "${option}: prepend of ${lib.concatStringsSep ", " prepended} has no effect on ${lib.concatStringsSep ", " internal}, which has a peer of the cluster's own AS; use med or localPref there."
      )
      ++ lib.optional
        (
          cfg.metrics.enable
          && cfg.metrics.openFirewall
          && cfg.metrics.address != null
          && ip.isLoopback cfg.metrics.address
        )
        "plasmacloud.network.fiberlbBgp.metrics.openFirewall: nobody beyond the node reaches ${toString cfg.metrics.address}; set metrics.address, or leave the port closed."
      ++ (
        let
          alone = lib.filter (id: data.peersOf cluster.nodes.${id} == { }) data.speakers;
        in
        lib.optional (alone != [ ])
          "plasmacloud.cluster.bgp.peers: ${lib.concatStringsSep ", " alone} would announce to nobody; name the routers, or set bgp.peers of the site or of the node."
      );
  };
}
