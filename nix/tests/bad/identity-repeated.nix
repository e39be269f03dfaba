{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes = {
    node01.identity = {
      macs = [
        "52:54:00:12:34:aa"
        "52:54:00:12:34:bb"
        "52:54:00:12:34:BB"
      ];
      serial = "0123456789";
    };
    node02.identity = {
      macs = [ "52-54-00-12-34-AA" ];
      serial = "0123456789";
    };
  };
}
