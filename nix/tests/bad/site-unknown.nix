{
  imports = [ ../base.nix ];
  plasmacloud.cluster = {
    sites.berlin = { };
    nodes.node01.site = "berlin";
    nodes.node02.site = "lyon";
  };
}
