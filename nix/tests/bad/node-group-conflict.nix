{
  imports = [
    ../base.nix
    {
      _file = "operators.nix";
      plasmacloud.cluster.nodes.node02.deployment.targetUser = "admin";
    }
  ];
  plasmacloud.cluster.nodes.node02.deployment.targetUser = "deploy";
}
