/*
  Every test whose result is a value, in one evaluation: { <golden file> = text; }.
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
  file = lib.nameValuePair;

  nixosModule.imports = [
    ../nix-nos/modules
    ../modules/plasmacloud-cluster.nix
    ../modules/plasmacloud-deployer.nix
    ../modules/plasmacloud-network.nix
    ../modules/plasmacloud-phone-home.nix
  ];
  mkCluster = import ../lib/mk-cluster.nix { inherit lib nixosModule; };
  optionsDoc = import ../options-doc.nix {
    inherit lib;
    inherit
      (lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ nixosModule ];
      })
      options
      ;
  };
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
  # What each daemon gets to read.
  nixNos = lib.concatMap (
    name:
    lib.concatMap
      (
        backend:
        let
          speaker = import ./nix-nos/speaker.nix {
            inherit lib backend;
            module = ./nix-nos/good + "/${name}.nix";
          };
        in
        lib.throwIf (speaker.failures != [ ]) "nix-nos/good/${name}.nix: ${toString speaker.failures}" (
          lib.mapAttrsToList (of: file "nix-nos/good/${name}.${of}") (
            speaker.files // lib.optionalAttrs (name == "bfd" || name == "guarded") speaker.unit
          )
        )
      )
      (
        {
          aggregate = [ "frr" ];
          kernel = [
            "bird"
            "frr"
          ];
          link-local = [ "bird" ];
          unnumbered = [
            "bird"
            "frr"
          ];
          limit = [
            "bird"
            "gobgp"
          ];
        }
        .${name} or [
          "bird"
          "frr"
          "gobgp"
        ]
      )
  ) (casesIn "nix-nos/good");

  # What systemd-networkd gets to read.
  networks = map (
    name:
    let
      machine = import ./nix-nos/network/machine.nix {
        inherit lib;
        module = ./nix-nos/network/good + "/${name}.nix";
      };
    in
    lib.throwIf (machine.failures != [ ]) "nix-nos/network/good/${name}.nix: ${toString machine.failures}" (
      file "nix-nos/network/good/${name}.networkd" (
        lib.concatStrings (
          lib.mapAttrsToList (name: text: "##### /etc/systemd/network/${name}\n\n${text}") machine.files
        )
      )
    )
  ) (casesIn "nix-nos/network/good");
  topologies = map (
    name:
    file "nix-nos/network/topology/${name}.json" (
      pretty (
        import ./nix-nos/network/topology.nix {
          inherit lib;
          module = ./nix-nos/network/topology + "/${name}.nix";
        }
      )
    )
  ) (casesIn "nix-nos/network/topology");
in
lib.listToAttrs (
  good
  ++ networks
  ++ topologies
  ++ nixNos
  ++ merge
  ++ lib.mapAttrsToList (name: file "options/${name}.md") optionsDoc
  ++ lib.mapAttrsToList (name: file "units/${name}.service") (
    import ./units.nix { inherit lib mkCluster; }
  )
  ++ [
    (file "iso.json" (pretty (import ./iso.nix { inherit lib mkCluster; })))
    (file "nodes.json" (pretty (import ./nodes.nix { inherit lib mkCluster nixosModule; })))
    (file "prismnet.json" (pretty (import ./prismnet.nix { inherit lib mkCluster; })))
    (file "nix-nos/network/readme.json" (pretty (import ./nix-nos/network/readme.nix { inherit lib; })))
    (file "ip.json" (pretty (import ./ip-check.nix { inherit lib; })))
  ]
)
