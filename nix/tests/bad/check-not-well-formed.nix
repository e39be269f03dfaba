{
  imports = [ ../base.nix ];
  plasmacloud.cluster.bgp.asn = 65001;
  plasmacloud.network.fiberlbBgp = {
    enable = true;
    vips = [
      {
        address = "203.0.113.10";
        checks =
          map
            (url: {
              type = "http";
              inherit url;
            })
            [
              "http://127.0.0.1/%zz"
              "http://127.0.0.1/a\tb"
              "http://[1.2.3.4]/"
              "http://[:::]/"
              "http://...:8080/"
              "http://10.0.0.256/"
              "http://u:p@127.0.0.1/"
              "http://[::1"
            ]
          ++
            map
              (address: {
                type = "tcp";
                inherit address;
              })
              [
                "[1.2.3.4]:80"
                "[:::]:80"
                "...:8080"
                "a..b:80"
              ];
      }
    ];
  };
}
