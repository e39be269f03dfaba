# nix-nos.topology.configureInterfaces: the addresses of this machine's links.
{ lib, config, ... }:
let
  cfg = config.nix-nos.topology;
  derived = import ../lib/topology.nix {
    topology = cfg;
    inherit (cfg) self;
  };
in
{
  imports = [
    ./topology.nix
    ./interfaces.nix
  ];

  options.nix-nos.topology.configureInterfaces = lib.mkOption {
    type = lib.types.bool;
    default = false;
    example = true;
    description = ''
      Give this machine's interfaces the addresses that its links have, in
      {option}`nix-nos.interfaces`, as defaults.
    '';
  };

  config = lib.mkIf cfg.configureInterfaces {
    assertions = [
      {
        assertion = cfg.self != null;
        message = "nix-nos.topology.configureInterfaces: this machine, \"${config.networking.hostName}\", is no node of the topology; add it to nix-nos.topology.nodes, or name it in nix-nos.topology.self.";
      }
    ];
    nix-nos.interfaces = lib.listToAttrs (
      map (end: lib.nameValuePair end.near.interface { addresses = lib.mkDefault end.near.addresses; }) (
        lib.optionals (cfg.self != null) derived.ends
      )
    );
  };
}
