/*
  Every test whose result is a value, in one evaluation: a text in which each
  golden file follows a line "=== its name".
*/
{ libPath }:
let
  bare = import (libPath + "/default.nix");
  lib = bare // {
    nixosSystem = import ../offline/nixos.nix { lib = bare; };
  };
  pretty = import ./pretty-json.nix;

  casesIn =
    folder:
    map (name: lib.removeSuffix ".nix" name) (
      lib.filter (lib.hasSuffix ".nix") (lib.attrNames (builtins.readDir (./. + "/${folder}")))
    );
  file = name: text: "=== ${name}\n${text}";

  nixosModule.imports = [
    ../nix-nos/modules/bgp
    ../modules/plasmacloud-cluster.nix
    ../modules/plasmacloud-deployer.nix
    ../modules/plasmacloud-network.nix
    ../modules/plasmacloud-phone-home.nix
  ];
  mkCluster = import ../lib/mk-cluster.nix { inherit lib nixosModule; };
  manifestOf = cluster: lib.head (lib.attrValues cluster.plasmacloud);

  good = map (
    name:
    file "good/${name}.json" (
      pretty (manifestOf (mkCluster { modules = [ (./good + "/${name}.nix") ]; }))
    )
  ) (casesIn "good");

  merge = map (
    name: file "merge/${name}.json" (pretty (import (./merge + "/${name}.nix") { inherit lib; }))
  ) (casesIn "merge");
in
lib.concatStrings (
  good
  ++ merge
  ++ [
    (file "nodes.json" (pretty (import ./nodes.nix { inherit lib mkCluster nixosModule; })))
    (file "ip.json" (pretty (import ./ip-check.nix { inherit lib; })))
  ]
)
