{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes = {
    node01.deployment = {
      targetHost = "root@node01";
      tags = [ "can ary" ];
      provision.mode = "install";
    };
    node02.deployment.targetHost = "10.0.0.300";
    node02.deployment.provision.disk = "sda";
  };
}
