# Three nodes of one AS on one segment, and a router of another.
{
  nix-nos.topology = {
    bgp = "mesh";
    nodes = {
      one = {
        addresses = [
          "10.0.0.1"
          "2001:db8::1"
        ];
        asn = 65001;
      };
      two = {
        addresses = [
          "2001:DB8::2"
          "10.0.0.2"
        ];
        asn = 65001;
      };
      three = {
        addresses = [ "10.0.0.3" ];
        asn = 65001;
      };
      router = {
        addresses = [ "10.0.0.9" ];
        asn = 65000;
      };
    };
  };
}
