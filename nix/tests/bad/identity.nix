{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.node01.identity = {
    macs = [
      "52:54:00:12:34"
      "52:54:00:12-34-56"
      "01:00:5e:00:00:01"
      "ff:ff:ff:ff:ff:ff"
      "00:00:00:00:00:00"
    ];
    serial = "CZ3412X0PQ ";
  };
}
