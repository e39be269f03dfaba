{
  lib,
  buildGoModule,
  # The names below cmd/ of those that are built.
  programs ? [
    "plasmacloud-announcer"
    "plasmacloud-deployer"
    "plasmacloud-phone-home"
    "plasmactl"
  ],
}:
buildGoModule rec {
  pname = if lib.length programs == 1 then lib.head programs else "plasmacloud";
  version = "0.1.0";

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../go.mod
      ../go.sum
      ../bgp
      ../cmd
      ../deployer
      ../docs/docs.go
      ../docs/lab.md
      ../nix/machines
      ../nix/offline
      ../nixeval
      ../vmtests
    ];
  };

  # Recomputed by nix/update-vendor-hash.
  vendorHash = "sha256-ebhs9MheNFhvYiln60YiNd4XdudCnf8zZl+f6Ira1DI=";

  subPackages = map (program: "cmd/${program}") programs;
  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-X github.com/centra/plasmacloud/cmd/internal/daemon.version=${version}"
  ];
  # They need real daemons, network namespaces and nix: `make test`.
  doCheck = false;

  meta = {
    description = "Bare-metal nodes and BGP-announced VIPs from one Nix definition";
    homepage = "https://github.com/centra/plasmacloud";
    mainProgram = lib.last programs;
    platforms = lib.platforms.linux;
  };
}
