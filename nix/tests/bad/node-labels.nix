{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes = {
    node01.labels = {
      "disk type" = "ssd";
      "a/b/c" = "x";
      rack = "a1-";
    };
    node02.labels.zone = "eu/1";
  };
}
