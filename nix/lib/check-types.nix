/*
  The types of health checks: the option that says what is asked, the other
  options that each takes, and what an option is when nobody set it.
*/
rec {
  target = {
    http = "url";
    tcp = "address";
    grpc = "address";
    exec = "command";
    systemd = "unit";
  };

  options = {
    http = [
      "url"
      "status"
      "body"
      "bodyRegex"
      "headers"
      "redirects"
      "host"
      "caFile"
    ];
    tcp = [ "address" ];
    grpc = [
      "address"
      "service"
      "tls"
      "host"
      "caFile"
    ];
    exec = [ "command" ];
    systemd = [ "unit" ];
  };

  unset = {
    url = null;
    address = null;
    status = [ ];
    body = "";
    bodyRegex = "";
    headers = { };
    redirects = 0;
    host = null;
    caFile = null;
    service = "";
    tls = false;
    command = [ ];
    unit = null;
  };

  # In announcer.json.
  keys = {
    bodyRegex = "body_regex";
    caFile = "ca_file";
  };

  # What is set by the announcer or by HTTP itself, or is secret; in small letters.
  reservedHeaders = [
    "host"
    "authorization"
    "proxy-authorization"
    "cookie"
    "content-length"
    "transfer-encoding"
    "trailer"
    "connection"
    "upgrade"
  ];

  # The keys of a check's announcer.json that belong to its type: those that are set.
  rendered =
    c:
    builtins.listToAttrs (
      map (name: {
        name = keys.${name} or name;
        value = c.${name};
      }) (builtins.filter (name: c.${name} != unset.${name}) options.${c.type})
    );
}
