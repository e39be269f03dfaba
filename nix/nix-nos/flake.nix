{
  description = "Network operating system modules for NixOS: topology, interfaces, VLANs, routes and BGP, whatever the daemon";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      # Not the bare path, which `nix flake check` of older versions refuses.
      module = path: { imports = [ path ]; };
    in
    {
      nixosModules = {
        default = module ./modules;
        # With what follows from it for BGP and interfaces.
        topology.imports = [
          ./modules/topology-bgp.nix
          ./modules/topology-interfaces.nix
        ];
        interfaces = module ./modules/interfaces.nix;
        vlans = module ./modules/vlans.nix;
        routing = module ./modules/routing.nix;
        bgp = module ./modules/bgp;
      };

      lib = {
        ip = import ./lib/ip.nix;
        asn = import ./lib/asn.nix;
        community = import ./lib/community.nix;
      };
    };
}
