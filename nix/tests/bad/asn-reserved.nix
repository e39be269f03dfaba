{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 23456;
}
