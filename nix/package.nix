{ lib, buildGoModule }:
buildGoModule rec {
  pname = "plasmacloud";
  version = "0.1.0";

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../go.mod
      ../go.sum
      ../bgp
      ../cmd
      ../deployer
      ../nix/offline
      ../nixeval
      ../vmtests
    ];
  };

  # Recomputed by nix/update-vendor-hash.
  vendorHash = "sha256-xoNiYfNaqafFLsywt28FBoCdRj+wYk0iFvtspHZ8+dU=";

  subPackages = [
    "cmd/plasmacloud-announcer"
    "cmd/plasmacloud-deployer"
    "cmd/plasmacloud-phone-home"
    "cmd/plasmactl"
  ];
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
    mainProgram = "plasmactl";
    platforms = lib.platforms.linux;
  };
}
