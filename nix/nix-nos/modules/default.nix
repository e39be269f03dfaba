# All of nix-nos.
{
  imports = [
    ./bgp
    ./interfaces.nix
    ./routing.nix
    ./topology.nix
    ./vlans.nix
  ];
}
