# What every node of a topology gets from it.
{ lib, module }:
let
  machine =
    hostName:
    import ./machine.nix {
      inherit lib;
      module = {
        imports = [ module ];
        networking = { inherit hostName; };
        nix-nos.bgp.enable = true;
      };
    };
in
lib.mapAttrs (
  name: _:
  let
    inherit (machine name) config failures;
    inherit (config.nix-nos) bgp;
  in
  {
    inherit failures;
    inherit (config) warnings;
    bgp = {
      inherit (bgp)
        asn
        routerId
        transit
        openFirewall
        ;
      peers = lib.mapAttrs (_: p: {
        inherit (p)
          address
          localAddress
          asn
          families
          passive
          ;
      }) bgp.peers;
    };
    interfaces = lib.mapAttrs (_: i: i.addresses) config.nix-nos.interfaces;
  }
) (import module).nix-nos.topology.nodes
