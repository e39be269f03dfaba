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
  inherit (import ./peer.nix { inherit lib bgp; }) imported;

  # TOML has no null: what is not set must not be there.
  neighbor = p: {
    config = {
      neighbor-address = ip.canonicalOrGiven p.address;
      peer-as = p.asn;
    }
    // lib.optionalAttrs (p.description != null) { inherit (p) description; };
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
          prefix-list = map (prefix: { ip-prefix = prefix; }) s.prefixes;
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
    map (p: ip.canonicalOrGiven p.address) (lib.attrValues (lib.filterAttrs wanted bgp.peers));

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
          inherit (g) prefixes;
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

  imports = policyOf "imports" (
    lib.concatLists (
      lib.mapAttrsToList (
        name: p:
        let
          peers = [ (ip.canonicalOrGiven p.address) ];
        in
        lib.optionals (p.import != "all") (
          lib.concatMap (
            family:
            lib.optional (imported p family != [ ]) {
              name = "from-${name}-${family}";
              inherit peers;
              prefixes = imported p family;
              actions.route-disposition = "accept-route";
            }
          ) p.families
          ++ [
            {
              name = "from-${name}";
              inherit peers;
              prefixes = [ ];
              actions.route-disposition = "reject-route";
            }
          ]
        )
      ) bgp.peers
    )
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
      exporting = perPeer.policies or [ ] ++ ownRoutesOnly;
      importing = imports.policies or [ ];
      names = map (p: p.name);
      sets = of: perPeer.${of} or [ ] ++ imports.${of} or [ ];
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

  configFile = "nix-nos/gobgpd.toml";
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
    assertions = lib.mapAttrsToList (name: p: {
      assertion = !p.bfd.enable;
      message = "nix-nos.bgp.peers.${name}.bfd.enable: the gobgp backend has no BFD; set nix-nos.bgp.backend to \"bird\" or \"frr\", or shorten timers.hold instead.";
    }) bgp.peers;

    services.gobgpd = {
      enable = true;
      settings = lib.recursiveUpdate policy {
        # What is missing is for the assertions to say, not for the TOML type.
        global.config = lib.filterAttrs (_: v: v != null) {
          as = bgp.asn;
          router-id = bgp.routerId;
        };
        neighbors = lib.mapAttrsToList (_: neighbor) bgp.peers;
      };
    };

    environment.etc = {
      ${configFile}.source = rendered;
      ${announcementsFile} = lib.mkIf cfg.injectAnnouncements { text = announcements; };
    };
    environment.systemPackages = [ pkgs.gobgp ];

    systemd.services.gobgpd = {
      # A changed peer is no reason to drop the sessions with all the others.
      reloadTriggers = [ rendered ];
      restartTriggers = [ (builtins.toJSON config.services.gobgpd.settings.global) ];
      # Else systemd gives it up for good after five quick failures.
      startLimitIntervalSec = 0;
      serviceConfig = {
        ExecStartPre = lib.mkForce "${pkgs.gobgpd}/bin/gobgpd -f /etc/${configFile} --dry-run";
        ExecStart = lib.mkForce "${pkgs.gobgpd}/bin/gobgpd -f /etc/${configFile} --sdnotify --api-hosts=${cfg.apiAddress}";
        # gobgpd -r means graceful restart; the file is read again at SIGHUP.
        ExecReload = lib.mkForce "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "always";
        RestartSec = "1s";
      }
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
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        DynamicUser = true;
        RuntimeDirectory = "gobgpd-announcements";
        TimeoutStartSec = "60s";
        Restart = "on-failure";
        RestartSec = "2s";
      };
    };
  };
}
