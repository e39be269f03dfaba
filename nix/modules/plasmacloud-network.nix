# A node's share of plasmacloud.network: the speaker, and the announcer beside it.
{
  lib,
  config,
  pkgs,
  ...
}:
let
  inherit (config.plasmacloud) node package;
  network = config.plasmacloud.network.fiberlbBgp;
  inherit (network) metrics;
  speaks = node.data != null && node.data.announcer != null;
  file = "plasmacloud/announcer.json";
  announcer = "${package}/bin/plasmacloud-announcer";
  status = import ../lib/announcer-status.nix;
  announcerJson = builtins.toJSON node.data.announcer + "\n";

  releaseUnit = "plasmacloud-announcer-release.service";
  user = "plasmacloud-announcer";
  # Not DynamicUser: systemd keeps dbus-daemon from seeing such users
  # (SYSTEMD_NSS_DYNAMIC_BYPASS), which then refuses them, and the announcer asks
  # systemd whether it is restarted, and for checks of units.
  confined = {
    User = user;
    Group = user;
    RemoveIPC = true;
    AmbientCapabilities = [ "CAP_NET_ADMIN" ];
    CapabilityBoundingSet = [ "CAP_NET_ADMIN" ];
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_INET6"
      "AF_NETLINK"
      "AF_UNIX"
    ];
    UMask = "0077";
  };

  /*
    Seconds until systemd kills an announcer that stops, with its VIPs still
    bound. A stop may take the longest drain delay, and the graceful shutdown
    before it, twice (a withdraw that is late starts a drain at the very end),
    and 60 s for a speaker that is slow to answer. In steps, since a unit whose file changes is restarted, where a
    changed drain delay alone is no more than a reload; and of all VIPs of the
    cluster, since a node in maintenance is to go on.
  */
  stopSeconds =
    let
      inherit (import ../lib/duration.nix { inherit lib; }) parse;
      delays = lib.filter (text: text != null) (
        [ network.drainDelay ] ++ map (v: v.drainDelay) network.vips
      );
      longest = lib.foldl' (most: text: lib.max most (parse text)) 0 delays;
      before = if network.gracefulShutdown.enable then parse network.gracefulShutdown.delay else 0;
      atLeast = (before + longest) * 2 / 1000 + 60;
      step = seconds: if seconds >= atLeast then seconds else step (2 * seconds);
    in
    step 90;
in
{
  imports = [
    ./options/node.nix
    ./options/package.nix
    ./plasmacloud-prismnet.nix
  ];

  options.services.fiberlb.bgp.gobgpAddress = lib.mkOption {
    type = lib.types.str;
    default = config.nix-nos.bgp.gobgp.apiAddress;
    defaultText = lib.literalExpression "config.nix-nos.bgp.gobgp.apiAddress";
    example = "127.0.0.1:50051";
    description = "Where FiberLB finds the API of the node's gobgpd, as HOST:PORT.";
  };

  config = lib.mkMerge [
    (lib.mkIf speaks {
      nix-nos.bgp = {
        enable = true;
        backend = lib.mkDefault node.data.bgp.backend;
        inherit (node.data.bgp)
          asn
          routerId
          peers
          announcements
          ;
        gobgp = {
          apiAddress = node.data.announcer.speaker.address;
          # The announcer originates the routes, by health.
          injectAnnouncements = false;
          # It has withdrawn them before gobgpd stops with the machine.
          keepRoutesOnStop = true;
        };
      };

      assertions = [
        {
          assertion = config.nix-nos.bgp.backend == node.data.bgp.backend;
          message = "nix-nos.bgp.backend: \"${config.nix-nos.bgp.backend}\", and ${node.id} announces VIPs, which the announcer does over gobgpd's API; leave it at \"${node.data.bgp.backend}\", or take \"fiberlb\" from the node's services and its name from the nodes of VIPs.";
        }
      ];

      environment.etc.${file}.text = announcerJson;

      networking.firewall.allowedTCPPorts = lib.mkIf (
        metrics.enable && metrics.openFirewall
      ) [ metrics.port ];

      boot.kernel.sysctl = lib.mkIf network.quietArp {
        "net.ipv4.conf.all.arp_ignore" = lib.mkDefault 1;
        "net.ipv4.conf.all.arp_announce" = lib.mkDefault 2;
      };

      users.users.${user} = {
        isSystemUser = true;
        group = user;
        description = "Announcer of the node's VIPs";
      };
      users.groups.${user} = { };

      # plasmactl vip, and plan.
      environment.systemPackages = [ package ];

      # For services that run as root and have given up its capabilities.
      users.groups.${status.group} = { };

      systemd.services.plasmacloud-announcer = {
        description = "Announcer of the node's VIPs";
        documentation = [ "https://github.com/centra/plasmacloud" ];
        wantedBy = [ "multi-user.target" ];
        # Not bindsTo: the announcer outlives a restart of the speaker, and
        # gives it its routes back.
        wants = [ "gobgpd.service" ];
        after = [
          "network.target"
          "gobgpd.service"
        ];
        reloadTriggers = [ announcerJson ];
        # What a reload refuses to change.
        restartTriggers = [
          (builtins.toJSON {
            inherit (node.data.announcer)
              node_id
              asn
              speaker
              hold
              ;
          })
        ];
        # One job of systemd's instead of two, so that the announcer can tell a
        # restart from a stop, and leaves the VIPs as they are.
        stopIfChanged = false;
        startLimitIntervalSec = 0;
        serviceConfig = import ./hardening.nix // confined // {
          Type = "notify";
          ExecStartPre = "${announcer} check /etc/${file}";
          ExecStart = "${announcer} run --config /etc/${file} --control-group ${status.group}";
          ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
          # After any end; where the next announcer runs soon, it does nothing.
          ExecStopPost = "+-${pkgs.systemd}/bin/systemctl start --no-block ${releaseUnit}";
          Restart = "always";
          RestartSec = "1s";
          TimeoutStopSec = "${toString stopSeconds}s";
          # A pass may wait several times for the speaker, and for the kernel.
          WatchdogSec = "90s";
          # For operators' orders to drain, and the socket to give them at.
          RuntimeDirectory = "plasmacloud-announcer";
          StateDirectory = "plasmacloud-announcer";
          SupplementaryGroups = [ status.group ];
        };
      };

      systemd.services.plasmacloud-announcer-release = {
        description = "Release of the VIPs that an announcer left behind";
        documentation = [ "https://github.com/centra/plasmacloud" ];
        after = [ "gobgpd.service" ];
        # It waits for an announcer that is restarted.
        restartIfChanged = false;
        serviceConfig = import ./hardening.nix // confined // {
          Type = "exec";
          ExecStart = "${announcer} release --config /etc/${file} --after 1m";
          # To note that nothing is left.
          StateDirectory = "plasmacloud-announcer";
        };
      };
    })
  ];
}
