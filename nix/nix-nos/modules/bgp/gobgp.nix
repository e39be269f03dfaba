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
  community = import ../../lib/community.nix;
  bgp = config.nix-nos.bgp;
  cfg = bgp.gobgp;

  families = [
    "ipv4-unicast"
    "ipv6-unicast"
  ];

  # TOML has no null: what is not set must not be there.
  neighbor = p: {
    config = {
      neighbor-address = ip.canonicalOrGiven p.address;
      peer-as = p.asn;
    }
    // lib.optionalAttrs (p.description != null) { inherit (p) description; };
    transport.config.passive-mode = p.passive;
    afi-safis = map (
      name:
      {
        config.afi-safi-name = name;
      }
      // lib.optionalAttrs cfg.gracefulRestart { mp-graceful-restart.config.enabled = true; }
    ) families;
  }
  // lib.optionalAttrs (p.multihop != null) {
    ebgp-multihop.config = {
      enabled = true;
      multihop-ttl = p.multihop;
    };
  }
  // lib.optionalAttrs cfg.gracefulRestart {
    graceful-restart.config = {
      enabled = true;
      restart-time = cfg.restartTime;
    };
  };

  # An external peer gets every route unless a policy says otherwise. "local" is
  # what came over the API.
  ownRoutesOnly = lib.optionalAttrs (!bgp.transit) {
    global.apply-policy.config = {
      export-policy-list = [ "own-routes" ];
      default-export-policy = "reject-route";
    };
    policy-definitions = [
      {
        name = "own-routes";
        statements = [
          {
            name = "own-routes";
            conditions.bgp-conditions.route-type = "local";
            actions.route-disposition = "accept-route";
          }
        ];
      }
    ];
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
    a:
    let
      prefix = ip.parsePrefix a.prefix;
    in
    lib.concatStringsSep " " (
      [ prefix.text ]
      ++ lib.optionals (a.nextHop != null) [
        "nexthop"
        (ip.canonicalOrGiven a.nextHop)
      ]
      ++ lib.optionals (a.med != null) [
        "med"
        (toString a.med)
      ]
      ++ lib.optionals (a.localPref != null) [
        "local-pref"
        (toString a.localPref)
      ]
      ++ communities "community" (lib.filter community.isStandard a.communities)
      ++ communities "large-community" (lib.filter community.isLarge a.communities)
      ++ [
        "-a"
        "ipv${toString prefix.family}"
      ]
    );
  announcements = lib.concatMapStrings (a: announcementLine a + "\n") (
    lib.filter (a: ip.parsePrefix a.prefix != null) bgp.announcements
  );

  apiParts = builtins.match "(.*):([0-9]+)" cfg.apiAddress;
  apiHost = lib.removePrefix "[" (lib.removeSuffix "]" (lib.head apiParts));
  apiPort = lib.last apiParts;
in
{
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
    gracefulRestart = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Ask the peers to keep our routes while gobgpd restarts (RFC 4724).";
    };
    restartTime = mkOption {
      type = types.ints.between 1 4095;
      default = 120;
      example = 30;
      description = "Seconds that a peer keeps our routes for, at most.";
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
        off until {option}`nix-nos.bgp.gobgp.restartTime` is over.
      '';
    };
  };

  config = lib.mkIf (bgp.enable && bgp.backend == "gobgp") {
    services.gobgpd = {
      enable = true;
      settings = lib.recursiveUpdate ownRoutesOnly {
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
