{
  imports = [ ./cluster-name-missing.nix ];
  plasmacloud.cluster.name = "Rack 4";
}
