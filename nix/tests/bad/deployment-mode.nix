{
  imports = [ ../base.nix ];
  plasmacloud.cluster.nodes.node01.deployment.provision.mode = "pxe";
}
