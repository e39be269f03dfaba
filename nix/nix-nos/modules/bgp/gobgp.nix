# GoBGP as the daemon behind nix-nos.bgp.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  ip = import ../../lib/ip.nix;
  bgp = config.nix-nos.bgp;
  cfg = bgp.gobgp;
  inherit
    (import ./announcement.nix {
      inherit lib bgp;
    })
    groups
    ;
  inherit (import ./peer.nix { inherit lib bgp; }) id rulesOf;
  passwords = import ./passwords.nix { inherit lib bgp pkgs; };

  # TOML has no null: what is not set must not be there.
  neighbor = name: p: {
    config = {
      neighbor-address = id p;
      peer-as = p.asn;
    }
    // lib.optionalAttrs (p.description != null) { inherit (p) description; }
    // lib.optionalAttrs (p.passwordFile != null) { auth-password = passwords.mark name; };
    transport.config = {
      passive-mode = p.passive;
    }
    // lib.optionalAttrs (p.localAddress != null) {
      local-address = ip.canonicalOrGiven p.localAddress;
    };
    afi-safis = map (
      name:
      {
        config.afi-safi-name = "${name}-unicast";
      }
      // lib.optionalAttrs p.gracefulRestart.enable { mp-graceful-restart.config.enabled = true; }
      // lib.optionalAttrs (p.maxPrefixes != null) { prefix-limit.config.max-prefixes = p.maxPrefixes; }
    ) p.families;
  }
  // lib.optionalAttrs (timers p != { }) { timers.config = timers p; }
  // lib.optionalAttrs (p.multihop != null) {
    ebgp-multihop.config = {
      enabled = true;
      multihop-ttl = p.multihop;
    };
  }
  // lib.optionalAttrs (p.ttlSecurity != null) {
    ttl-security.config = {
      enabled = true;
      ttl-min = 256 - p.ttlSecurity;
    };
  }
  // lib.optionalAttrs p.gracefulRestart.enable {
    graceful-restart.config = {
      enabled = true;
      restart-time = bgp.gracefulRestart.restartTime;
      # After a start gobgpd waits for all peers before it sends routes, so for one
      # that is away it must not wait long. Its own default is 360; 0 counts as none.
      deferral-time = 1;
    };
  }
  # In microseconds.
  // lib.optionalAttrs p.bfd.enable {
    bfd.config = {
      enabled = true;
      desired-minimum-tx-interval = 1000 * p.bfd.transmitInterval;
      required-minimum-receive = 1000 * p.bfd.receiveInterval;
      detection-multiplier = p.bfd.multiplier;
    };
  };
  # What differs from gobgpd's own: 90, 30 and 120 seconds.
  timers =
    p:
    lib.optionalAttrs (p.timers.hold != 90 || p.timers.keepalive != 30) {
      hold-time = p.timers.hold;
      keepalive-interval = p.timers.keepalive;
    }
    // lib.optionalAttrs (p.timers.connectRetry != 120) { connect-retry = p.timers.connectRetry; };

  # A policy of statements { name; prefixes; peers; actions; conditions ? { }; },
  # with the sets that they name; no prefixes: any.
  policyOf =
    name: statements:
    lib.optionalAttrs (statements != [ ]) {
      prefixSets = lib.concatMap (
        s:
        lib.optional (s.prefixes != [ ]) {
          prefix-set-name = s.name;
          prefix-list = map (
            prefix:
            {
              ip-prefix = prefix.text;
            }
            // lib.optionalAttrs (prefix.longest or prefix.length > prefix.length) {
              masklength-range = "${toString prefix.length}..${toString prefix.longest}";
            }
          ) s.prefixes;
        }
      ) statements;
      neighborSets = map (s: {
        neighbor-set-name = s.name;
        neighbor-info-list = s.peers;
      }) statements;
      policies = [
        {
          inherit name;
          statements = map (s: {
            inherit (s) name actions;
            conditions = {
              match-neighbor-set.neighbor-set = s.name;
            }
            // lib.optionalAttrs (s.prefixes != [ ]) { match-prefix-set.prefix-set = s.name; }
            // s.conditions or { };
          }) statements;
        }
      ];
    };

  addresses =
    wanted:
    map id (lib.attrValues (lib.filterAttrs wanted bgp.peers));

  # What an announcement says of the way to a peer is a policy, since gobgpd's
  # table has a route once for all peers.
  perPeer =
    let
      external = addresses (_: p: p.asn != bgp.asn);
      notFor = g: addresses (name: _: !(g.hears name));
      statement =
        g: s:
        s
        // {
          prefixes = map ip.parsePrefix g.prefixes;
          conditions.bgp-conditions.route-type = "local";
        };
    in
    policyOf "announcements" (
      lib.concatMap (
        g:
        map (statement g) (
          lib.optional (notFor g != [ ]) {
            name = "not-for-all-${toString g.id}";
            peers = notFor g;
            actions.route-disposition = "reject-route";
          }
          ++ lib.optional (g.prepend > 0 && external != [ ]) {
            name = "prepend-${toString g.id}";
            peers = external;
            actions.bgp-actions.set-as-path-prepend = {
              as = toString bgp.asn;
              repeat-n = g.prepend;
            };
          }
        )
      ) groups
    );

  rulesActions =
    r:
    let
      added =
        name: communities:
        lib.optionalAttrs (communities != [ ]) {
          "set-${name}" = {
            options = "add";
            "set-${name}-method".communities-list = communities;
          };
        };
      actions =
        lib.optionalAttrs (r.localPref != null) { set-local-pref = r.localPref; }
        // lib.optionalAttrs (r.med != null) { set-med = toString r.med; }
        // added "community" r.standard
        // added "large-community" r.large
        // lib.optionalAttrs (r.prepend > 0) {
          set-as-path-prepend = {
            as = toString bgp.asn;
            repeat-n = r.prepend;
          };
        };
    in
    {
      route-disposition = if r.accept then "accept-route" else "reject-route";
    }
    // lib.optionalAttrs (actions != { }) { bgp-actions = actions; };
  # The import or export policies of all peers; conditions are more that a rule
  # for a route to be accepted has.
  direction =
    of: word: conditions:
    policyOf "${of}s" (
      lib.concatLists (
        lib.mapAttrsToList (
          name: p:
          let
            peers = [ (id p) ];
            rules = lib.concatMap (
              family:
              lib.concatMap (
                r:
                # A rule for every route is one for both families.
                lib.optional (r.prefixes != null || family == lib.head p.families) r
              ) (rulesOf p.${of} family)
            ) p.families;
          in
          lib.optionals (p.${of} != "all") (
            lib.imap1 (number: r: {
              name = "${word}-${name}-${toString number}";
              inherit peers conditions;
              prefixes = if r.prefixes == null then [ ] else r.prefixes;
              actions = rulesActions r;
            }) rules
            ++ [
              {
                name = "${word}-${name}";
                inherit peers;
                prefixes = [ ];
                actions.route-disposition = "reject-route";
              }
            ]
          )
        ) bgp.peers
      )
    );
  imports = direction "import" "from" { };
  exports = direction "export" "to" (
    lib.optionalAttrs (!bgp.transit) { bgp-conditions.route-type = "local"; }
  );

  # An external peer gets every route unless a policy says otherwise. "local" is
  # what came over the API.
  ownRoutesOnly = lib.optional (!bgp.transit) {
    name = "own-routes";
    statements = [
      {
        name = "own-routes";
        conditions.bgp-conditions.route-type = "local";
        actions.route-disposition = "accept-route";
      }
    ];
  };

  policy =
    let
      # In this order: what is rejected for a peer must not be accepted before.
      exporting = perPeer.policies or [ ] ++ exports.policies or [ ] ++ ownRoutesOnly;
      importing = imports.policies or [ ];
      names = map (p: p.name);
      sets = of: perPeer.${of} or [ ] ++ exports.${of} or [ ] ++ imports.${of} or [ ];
    in
    lib.optionalAttrs (exporting ++ importing != [ ]) {
      global.apply-policy.config =
        lib.optionalAttrs (!bgp.transit) { default-export-policy = "reject-route"; }
        // lib.optionalAttrs (exporting != [ ]) { export-policy-list = names exporting; }
        // lib.optionalAttrs (importing != [ ]) { import-policy-list = names importing; };
      policy-definitions = exporting ++ importing;
    }
    // lib.optionalAttrs (sets "neighborSets" != [ ]) {
      defined-sets = {
        neighbor-sets = sets "neighborSets";
      }
      // lib.optionalAttrs (sets "prefixSets" != [ ]) { prefix-sets = sets "prefixSets"; };
    };

  # Says at each start that routes are still forwarded as before (the F bit of RFC 4724,
  # section 4.2); else peers forget them as the session comes back, until they are sent
  # again.
  restarting = lib.optionalString (lib.any (p: p.gracefulRestart.enable) (
    lib.attrValues bgp.peers
  )) " --graceful-restart";

  hardening = import ../../lib/hardening.nix;
  families = [
    "AF_INET"
    "AF_INET6"
    "AF_UNIX"
  ];

  template = "nix-nos/gobgpd.toml";
  file = if passwords.any then passwords.file "gobgpd.toml" else "/etc/${template}";
  render = lib.optional passwords.any "+${
    passwords.render "toml" "/etc/${template}" file "/run/gobgpd"
  }";
  rendered = (pkgs.formats.toml { }).generate "gobgpd.toml" config.services.gobgpd.settings;

  announcementsFile = "nix-nos/gobgp-announcements";
  communities =
    keyword: list:
    lib.optionals (list != [ ]) [
      keyword
      (lib.concatStringsSep "," list)
    ];
  # One line a route: the prefix first, then what `gobgp global rib add` takes.
  announcementLine =
    g: prefix:
    lib.concatStringsSep " " (
      [
        prefix
        "origin"
        "igp"
      ]
      ++ lib.optionals (g.nextHop != null) [
        "nexthop"
        g.nextHop
      ]
      ++ lib.optionals (g.med != null) [
        "med"
        (toString g.med)
      ]
      ++ lib.optionals (g.localPref != null) [
        "local-pref"
        (toString g.localPref)
      ]
      ++ communities "community" g.standard
      ++ communities "large-community" g.large
      ++ [
        "-a"
        "ipv${toString g.family}"
      ]
    );
  announcements = lib.concatMapStrings (
    g: lib.concatMapStrings (prefix: announcementLine g prefix + "\n") g.prefixes
  ) groups;

  apiParts = builtins.match "(.*):([0-9]+)" cfg.apiAddress;
  apiHost = lib.removePrefix "[" (lib.removeSuffix "]" (lib.head apiParts));
  apiPort = lib.last apiParts;
in
{
  imports = [
    (lib.mkRenamedOptionModule
      [ "nix-nos" "bgp" "gobgp" "gracefulRestart" ]
      [ "nix-nos" "bgp" "gracefulRestart" "enable" ]
    )
    (lib.mkRenamedOptionModule
      [ "nix-nos" "bgp" "gobgp" "restartTime" ]
      [ "nix-nos" "bgp" "gracefulRestart" "restartTime" ]
    )
  ];

  options.nix-nos.bgp.gobgp = {
    apiAddress = mkOption {
      type = types.strMatching "(127\\.[0-9.]+|\\[::1]|localhost):[0-9]+";
      default = "127.0.0.1:50051";
      example = "127.0.0.1:50052";
      description = ''
        Where gobgpd serves its API. The API knows no authentication, so only
        a loopback address can be set: gobgpd's own default is every address.
      '';
    };
    injectAnnouncements = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Put {option}`nix-nos.bgp.announcements` into gobgpd as soon as it is
        ready: its configuration file knows no static routes. Turn this off
        where another program originates them over the API.
      '';
    };
    keepRoutesOnStop = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Stop gobgpd with SIGKILL. At SIGTERM it tells its peers goodbye, and
        they drop the routes at once whatever was agreed on graceful restart.
        Fit for a setup in which another program withdraws the routes before
        the machine goes down; else peers send traffic to a machine that is
        off until {option}`nix-nos.bgp.gracefulRestart.restartTime` is over.
      '';
    };
  };

  config = lib.mkIf (bgp.enable && bgp.backend == "gobgp") {
    assertions = [
      {
        assertion = !bgp.installRoutes.enable;
        message = "nix-nos.bgp.installRoutes.enable: the gobgp backend puts no routes into the kernel; set nix-nos.bgp.backend to \"bird\" or \"frr\".";
      }
    ]
    ++ lib.concatLists (
      lib.mapAttrsToList (name: p: [
        {
          assertion = !p.bfd.enable || lib.versionAtLeast pkgs.gobgpd.version "4.6";
          message = "nix-nos.bgp.peers.${name}.bfd.enable: the gobgp backend has BFD from gobgpd 4.6 on, and pkgs.gobgpd is ${pkgs.gobgpd.version}; take a newer one, set nix-nos.bgp.backend to \"bird\" or \"frr\", or shorten timers.hold instead.";
        }
        # gobgpd looks for the peer once, as it starts.
        {
          assertion = p.interface == null;
          message = "nix-nos.bgp.peers.${name}.interface: the gobgp backend never finds a peer that comes up after it; write the peer's global address in address, or set nix-nos.bgp.backend to \"bird\" or \"frr\".";
        }
      ]) bgp.peers
    );

    services.gobgpd = {
      enable = true;
      settings = lib.recursiveUpdate policy {
        # What is missing is for the assertions to say, not for the TOML type.
        global.config = lib.filterAttrs (_: v: v != null) {
          as = bgp.asn;
          router-id = bgp.routerId;
          port = if bgp.listen.port == 179 then null else bgp.listen.port;
          local-address-list =
            if bgp.listen.addresses == [ ] then null else map ip.canonicalOrGiven bgp.listen.addresses;
        };
        neighbors = lib.mapAttrsToList neighbor bgp.peers;
      };
    };

    environment.etc = {
      ${template}.source = rendered;
      ${announcementsFile} = lib.mkIf cfg.injectAnnouncements { text = announcements; };
    };
    environment.systemPackages = [ pkgs.gobgp ];

    systemd.services.gobgpd = {
      # Go's listeners speak multipath TCP, which knows no passwords; gobgpd 3 leaves
      # it on.
      environment = lib.mkIf passwords.any { GODEBUG = "multipathtcp=0"; };
      # A changed peer is no reason to drop the sessions with all the others.
      reloadTriggers = [ rendered ];
      # At a reload gobgpd sends no route anew: a changed policy would count for
      # later routes only.
      restartTriggers = [
        (builtins.toJSON (removeAttrs config.services.gobgpd.settings [ "neighbors" ]))
      ];
      # Else systemd gives it up for good after five quick failures.
      startLimitIntervalSec = 0;
      # nixpkgs' unit runs it as a user of its own that may bind port 179.
      serviceConfig = hardening // {
        CapabilityBoundingSet = [ "CAP_NET_BIND_SERVICE" ];
        RestrictAddressFamilies = families ++ [ "AF_NETLINK" ];
        UMask = "0077";
        ExecStartPre = lib.mkForce (render ++ [ "${pkgs.gobgpd}/bin/gobgpd -f ${file} --dry-run" ]);
        ExecStart = lib.mkForce "${pkgs.gobgpd}/bin/gobgpd -f ${file} --sdnotify --api-hosts=${cfg.apiAddress}${restarting}";
        # The file is read again at SIGHUP; nixpkgs' unit runs `gobgpd -r`, which does not.
        ExecReload = lib.mkForce (render ++ [ "${pkgs.coreutils}/bin/kill -HUP $MAINPID" ]);
        Restart = "always";
        RestartSec = "1s";
      }
      # Whose file it is: the user of the unit has no name before it runs.
      // lib.optionalAttrs passwords.any { RuntimeDirectory = "gobgpd"; }
      // lib.optionalAttrs cfg.keepRoutesOnStop {
        KillSignal = "SIGKILL";
        SuccessExitStatus = "SIGKILL";
      };
    };

    systemd.services.gobgpd-announcements = lib.mkIf cfg.injectAnnouncements {
      description = "Routes that gobgpd originates";
      requires = [ "gobgpd.service" ];
      after = [ "gobgpd.service" ];
      partOf = [ "gobgpd.service" ];
      wantedBy = [ "gobgpd.service" ];
      reloadTriggers = [ announcements ];
      path = [
        pkgs.coreutils
        pkgs.gnugrep
        pkgs.gobgp
      ];
      # Else systemd gives it up for good after five quick failures.
      startLimitIntervalSec = 0;
      environment = {
        GOBGP_HOST = apiHost;
        GOBGP_PORT = apiPort;
        GOBGP_AS = toString bgp.asn;
        WANTED = "/etc/${announcementsFile}";
      };
      script = ''
        rm -f "$RUNTIME_DIRECTORY/applied"
        ${builtins.readFile ./gobgp-announce.sh}
      '';
      reload = builtins.readFile ./gobgp-announce.sh;
      serviceConfig = hardening // {
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = families;
        UMask = "0077";
        Type = "oneshot";
        RemainAfterExit = true;
        DynamicUser = true;
        RuntimeDirectory = "gobgpd-announcements";
        TimeoutStartSec = "60s";
        # A route that gobgpd refuses stays refused: try ever less often.
        Restart = "on-failure";
        RestartSec = "2s";
        RestartSteps = 5;
        RestartMaxDelaySec = "60s";
      };
    };
  };
}
