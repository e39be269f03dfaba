# Two nodes with PrismNET, and nothing that is not needed for it.
{
  plasmacloud.cluster = {
    name = "prismnet";
    nodes = {
      node01 = {
        role = "control-plane";
        ip = "10.0.0.11";
        ipv6 = "2001:db8:0:1::11";
      };
      node02.ip = "10.0.0.12";
    };
  };
  plasmacloud.network.prismnetIntegration = {
    enable = true;
    tls = {
      privateKey = "/run/secrets/ovn/key.pem";
      certificate = "/run/secrets/ovn/cert.pem";
      caCertificate = "/run/secrets/ovn/ca.pem";
    };
  };
}
