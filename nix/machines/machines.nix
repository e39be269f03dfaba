# Applied to a flake's nixosConfigurations and the name of a cluster, or "": the
# cluster's manifest, and of each of its nodes what its daemons are to read.
wanted: systems:
let
  named = builtins.listToAttrs (
    builtins.concatMap (
      name:
      let
        inherit (systems.${name}) config;
        manifest = config.plasmacloud.deployer.clusterManifest;
        id = config.plasmacloud.node.id or null;
      in
      if id == null || !(config.plasmacloud ? deployer.clusterManifest) then
        [ ]
      else if wanted != "" && config.plasmacloud.cluster.name != wanted then
        [ ]
      else
        [
          {
            name = id;
            value = { inherit config manifest; };
          }
        ]
    ) (builtins.attrNames systems)
  );
  ids = builtins.attrNames named;
  clusters = builtins.attrNames (
    builtins.listToAttrs (
      map (id: {
        name = named.${id}.config.plasmacloud.cluster.name;
        value = null;
      }) ids
    )
  );
  first = named.${builtins.head ids};

  machine =
    { config, ... }:
    let
      bgp = config.nix-nos.bgp;
      etc = config.environment.etc;
    in
    {
      failedAssertions = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
      announcer = etc."plasmacloud/announcer.json".text or null;
      bgp =
        if !bgp.enable then
          null
        else
          {
            inherit (bgp) backend asn;
            inherit (bgp.listen) port;
            peers = builtins.mapAttrs (_: p: {
              inherit (p)
                address
                interface
                asn
                localAddress
                passive
                multihop
                ttlSecurity
                families
                export
                ;
              password = p.passwordFile != null;
              inherit (p.timers) hold;
              gracefulRestart = p.gracefulRestart.enable;
              bfd = p.bfd.enable;
            }) bgp.peers;
            announcements = map (a: {
              inherit (a)
                prefix
                peers
                nextHop
                communities
                med
                localPref
                prepend
                ;
              aggregate = a.aggregate.enable;
            }) bgp.announcements;
            injects = bgp.backend != "gobgp" || bgp.gobgp.injectAnnouncements;
            inherit (bgp.gobgp) apiAddress;
            keepRoutes = bgp.gobgp.keepRoutesOnStop;
            config =
              {
                gobgp = builtins.toJSON config.services.gobgpd.settings;
                bird = config.services.bird.config;
                frr = config.services.frr.config;
              }
              .${bgp.backend};
            options = if bgp.backend == "frr" then config.services.frr.bgpd.extraOptions else [ ];
            routes = etc."nix-nos/gobgp-announcements".text or "";
          };
    };
in
if ids == [ ] then
  throw (
    if wanted == "" then
      "nixosConfigurations has no machine of a cluster; its outputs must come from plasmacloud.lib.mkCluster"
    else
      "the flake has no machine of a cluster ${wanted}"
  )
else if builtins.length clusters > 1 then
  throw "the flake has several clusters, name one after '#': ${builtins.concatStringsSep ", " clusters}"
else if first.manifest.failedAssertions != [ ] then
  {
    inherit (first) manifest;
    machines = { };
  }
else
  {
    inherit (first) manifest;
    machines = builtins.mapAttrs (_: machine) named;
  }
