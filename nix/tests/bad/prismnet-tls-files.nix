{ lib, ... }:
{
  imports = [ ../prismnet-cluster.nix ];
  plasmacloud.network.prismnetIntegration.tls = {
    privateKey = lib.mkForce "${builtins.toFile "key.pem" "a secret"}";
    certificate = lib.mkForce "cert.pem";
    caCertificate = lib.mkForce "/run/secrets/the ca.pem";
  };
}
