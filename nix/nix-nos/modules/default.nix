# All of nix-nos.
{
  imports = [
    ./bgp
    ./interfaces.nix
    ./routing.nix
    ./topology-bgp.nix
    ./topology-interfaces.nix
    ./vlans.nix
  ];
}
