{
  description = "Network operating system modules for NixOS: topology and BGP, whatever the daemon";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    {
      nixosModules = {
        default = {
          imports = [
            ./modules/topology.nix
            ./modules/bgp
          ];
        };
        topology = {
          imports = [ ./modules/topology.nix ];
        };
        bgp = self.nixosModules.default;
      };

      lib = {
        ip = import ./lib/ip.nix;
        asn = import ./lib/asn.nix;
        community = import ./lib/community.nix;
      };
    };
}
