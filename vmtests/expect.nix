/*
  What the example's cluster has to come to. It is written down here, and not taken
  from the evaluation that it is held against: by the NixOS VM tests, and by the Go
  tests (expect_test.go).
*/
{
  asn = 65001;

  # Seconds until a router gives a silent node up.
  hold = 90;

  # Where a router's routes to the VIPs of a node go.
  nextHops = {
    node01 = {
      ipv4 = "10.0.0.11";
      ipv6 = "2001:db8:0:1::11";
    };
    node02 = {
      ipv4 = "10.0.0.12";
      ipv6 = "2001:db8:0:1::12";
    };
    node03 = {
      ipv4 = "10.0.0.13";
      ipv6 = "2001:db8:0:1::13";
    };
  };

  vips = {
    # Announced while the web server answers.
    web = {
      address = "203.0.113.10";
      communities = [ "65001:100" ];
      checked = true;
    };
    # Announced while the node is up.
    always = {
      address = "203.0.113.20";
      communities = [ ];
      checked = false;
    };
    # As the first, by IPv6.
    web6 = {
      address = "2001:db8:0:2::10";
      communities = [ ];
      checked = true;
    };
  };

  # What the deployer shows of a node before and after it has phoned home.
  before.state = "Pending";
  after = {
    state = "Active";
    config = "in_sync";
    reachability = "online";
  };
}
