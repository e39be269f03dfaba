/*
  From the options plasmacloud.{cluster,network} to the data of a cluster and
  of each node. The manifest and the NixOS modules both take it from here, so
  that they cannot differ. What all nodes share is computed once.

  It can be evaluated for a cluster that fails its assertions too: NixOS
  evaluates a machine along with them, and an error here would hide them.
*/
{ lib }:
{ cluster, network, ... }:
let
  ip = import ../nix-nos/lib/ip.nix;
  mac = import ./mac.nix;
  checkTypes = import ./check-types.nix;
  bgp = network.fiberlbBgp;
  inherit (bgp) metrics;
  graceful = bgp.gracefulShutdown;

  # Each parsed once, of all nodes: { <node id> = { ip; ipv6; }; }, canonical, or as given.
  addresses = lib.mapAttrs (_: n: {
    ip = ip.canonicalOrGiven n.ip;
    ipv6 = ip.canonicalOrGiven n.ipv6;
  }) cluster.nodes;

  lbNodes = lib.filter (id: lib.elem "fiberlb" cluster.nodes.${id}.services) (
    lib.attrNames cluster.nodes
  );

  # Which nodes may announce a VIP: those that it names, or else those with
  # fiberlb, of the roles and with the labels that it asks for.
  isSelected =
    v: id:
    let
      n = cluster.nodes.${id};
    in
    (v.roles == [ ] || lib.elem n.role v.roles)
    && lib.all (key: n.labels.${key} or null == v.labels.${key}) (lib.attrNames v.labels);
  candidatesOf =
    v:
    if v.nodes != null then
      lib.filter (id: lib.elem id v.nodes) (lib.attrNames cluster.nodes)
    else if v.roles == [ ] && v.labels == { } then
      lbNodes
    else
      lib.filter (isSelected v) lbNodes;

  # What a node is not to announce: { <prefix> = true; }, or null for everything.
  excludedBy = lib.mapAttrs (
    _: n:
    if n.vips.announce then
      lib.listToAttrs (
        map (host: lib.nameValuePair host.prefix true) (
          lib.filter (host: host != null) (map ip.parseHost n.vips.exclude)
        )
      )
    else
      null
  ) cluster.nodes;
  mayAnnounce = prefix: id: excludedBy.${id} != null && !(excludedBy.${id} ? ${prefix});

  # VIPs that are an address, each with the nodes that may announce it, and those
  # that do.
  vips =
    if bgp.enable then
      lib.filter (v: v.host != null) (
        map (
          v:
          let
            host = ip.parseHost v.address;
            candidates = candidatesOf v;
          in
          v
          // {
            inherit host candidates;
            everywhere = v.nodes == null && v.roles == [ ] && v.labels == { };
            nodes = lib.filter (mayAnnounce host.prefix) candidates;
          }
        ) bgp.vips
      )
    else
      [ ];

  # A node that announces nothing for now stays a speaker, which withdraws in
  # order and keeps its sessions.
  named = lib.listToAttrs (
    lib.concatMap (v: map (id: lib.nameValuePair id true) v.candidates) (
      lib.filter (v: !v.everywhere) vips
    )
  );
  isSpeaker =
    id: bgp.enable && (named ? ${id} || lib.elem "fiberlb" cluster.nodes.${id}.services);

  entries = map (v: {
    inherit v;
    only = if v.everywhere then null else lib.genAttrs v.candidates (_: true);
    announcement = {
      inherit (v.host) prefix;
      inherit (v) communities med localPref;
      nextHop = null;
    };
    announced = {
      inherit (v.host) address;
      inherit (v)
        communities
        med
        prepend
        hold
        ;
      local_pref = v.localPref;
      checks = map (
        c:
        {
          inherit (c)
            type
            interval
            timeout
            rise
            fall
            ;
        }
        // (if c.fastInterval == null then { } else { fast_interval = c.fastInterval; })
        // checkTypes.rendered c
      ) v.checks;
    }
    // (if v.drainDelay == null then { } else { drain_delay = v.drainDelay; })
    // (if v.startDelay == null then { } else { start_delay = v.startDelay; })
    // (if v.require == "all" then { } else { inherit (v) require; })
    // (
      if v.damping == null then
        { }
      else
        {
          damping = {
            inherit (v.damping) penalty suppress reuse;
            half_life = v.damping.halfLife;
          };
        }
    );
  }) vips;
  runsLb = lib.genAttrs lbNodes (_: true);
  entriesOf =
    id:
    lib.filter (
      e:
      (if e.only == null then runsLb ? ${id} else e.only ? ${id}) && mayAnnounce e.v.host.prefix id
    ) entries;

  inherit (import ../modules/options/peer.nix { inherit lib cluster; }) rendered;
  # That a site is none, the assertions say.
  siteOf = n: if n.site == null then { } else cluster.sites.${n.site} or { };
  peersOf = n: cluster.bgp.peers // (siteOf n).bgp.peers or { } // n.bgp.peers;
  clusterPeers = lib.mapAttrs (_: rendered) cluster.bgp.peers;
  sitePeers = lib.mapAttrs (_: s: clusterPeers // lib.mapAttrs (_: rendered) s.bgp.peers) cluster.sites;
  renderedPeersOf =
    n:
    (if n.site == null then clusterPeers else sitePeers.${n.site} or clusterPeers)
    // lib.mapAttrs (_: rendered) n.bgp.peers;

  bootstraps = lib.genAttrs cluster.bootstrap.initialPeers (_: true);

  node =
    id:
    let
      n = cluster.nodes.${id};
      address = addresses.${id}.ip;
      inherit (addresses.${id}) ipv6;
      isIPv4 = ip.isIPv4 n.ip;
      mine = entriesOf id;
      nextHop = {
        ipv4 = if isIPv4 then address else null;
        ipv6 = if isIPv4 then ipv6 else address;
      };
      clusterConfig =
        builtins.toJSON {
          schema_version = 1;
          cluster_name = cluster.name;
          node_id = id;
          node_role = n.role;
          node_ip = address;
          node_ipv6 = ipv6;
          inherit (n) services labels site;
          bootstrap = bootstraps ? ${id};
          initial_peers = cluster.bootstrap.initialPeers;
          bgp_asn = cluster.bgp.asn;
          deployer_url = cluster.deployer.url;
        }
        + "\n";
    in
    {
      inherit (n)
        role
        services
        labels
        site
        ;
      ip = address;
      inherit ipv6 clusterConfig;
      identity = {
        macs = map mac.canonicalOrGiven n.identity.macs;
        inherit (n.identity) serial;
      };
      deployment = n.deployment // {
        targetHost = ip.canonicalOrGiven n.deployment.targetHost;
      };
      configHash = "sha256:${builtins.hashString "sha256" clusterConfig}";
      bgp =
        if isSpeaker id then
          {
            backend = "gobgp";
            inherit (cluster.bgp) asn;
            routerId = if n.bgp.routerId != null then n.bgp.routerId else address;
            peers = renderedPeersOf n;
            announcements = map (
              e:
              e.announcement
              // {
                nextHop = nextHop.${"ipv${toString e.v.host.family}"};
              }
            ) mine;
          }
        else
          null;
      announcer =
        if isSpeaker id then
          {
            schema_version = 1;
            node_id = id;
            speaker = {
              address = "127.0.0.1:50051";
              timeout = "2s";
            };
            inherit (cluster.bgp) asn;
            next_hop = nextHop;
            hold = {
              interface = bgp.holdInterface;
              netns = "";
            }
            // (if bgp.holdLifetime == null then { } else { lifetime = bgp.holdLifetime; });
            drain_delay = bgp.drainDelay;
            reconcile_interval = bgp.reconcileInterval;
            vips = map (e: e.announced) mine;
          }
          // (
            if metrics.enable then
              {
                metrics.listen =
                  let
                    on = if metrics.address == null then address else ip.canonicalOrGiven metrics.address;
                  in
                  "${if ip.isIPv6 on then "[${on}]" else on}:${toString metrics.port}";
              }
            else
              { }
          )
          // (
            if graceful.enable then
              {
                graceful_shutdown = {
                  inherit (graceful) by delay;
                  on_health = graceful.onHealth;
                };
              }
            else
              { }
          )
        else
          null;
    };
in
{
  inherit
    addresses
    vips
    node
    peersOf
    ;
  speakers = lib.filter isSpeaker (lib.attrNames cluster.nodes);
  vipsOf = id: map (e: e.v) (entriesOf id);

  # The `data` of the manifest.
  manifest = {
    schemaVersion = 1;
    cluster = {
      inherit (cluster) name;
      inherit (cluster.bgp) asn;
      inherit (cluster.bootstrap) initialPeers;
      deployerUrl = cluster.deployer.url;
    };
    vips = lib.listToAttrs (
      map (v: lib.nameValuePair v.host.prefix { inherit (v) nodes; }) vips
    );
    nodes = lib.genAttrs (lib.attrNames cluster.nodes) node;
  };
}
