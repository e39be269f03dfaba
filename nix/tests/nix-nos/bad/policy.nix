{
  nix-nos.bgp = {
    asn = 65001;
    routerId = "10.0.0.11";
    peers.inside = {
      address = "10.0.0.2";
      asn = 65001;
      export = [ { prepend = 1; } ];
    };
    peers.router1 = {
      address = "10.0.0.1";
      asn = 65000;
      import = [
        "203.0.113.1/24"
        { prefixes = [ ]; }
        {
          action = "reject";
          med = 1;
        }
        {
          prefixes = [
            "10.0.0.0/8"
            "::/0"
          ];
          orLonger = true;
          maxLength = 48;
        }
        {
          prefixes = [ "10.0.0.0/8" ];
          maxLength = 24;
        }
        { communities = [ "65001:65536" ]; }
      ];
      export = [
        { localPref = 1; }
        "203.0.113.0/24"
      ];
    };
  };
}
