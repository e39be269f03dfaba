{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 4294967296;
}
