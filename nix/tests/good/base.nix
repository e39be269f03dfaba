# No BGP: a manifest has nulls where a cluster with BGP has more.
{
  imports = [ ../base.nix ];
}
