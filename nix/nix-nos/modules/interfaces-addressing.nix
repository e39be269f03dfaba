/*
  What interfaces and VLANs have in common: addresses, and how else they come by
  some. Options, what can be wrong with them, and their part of a .network file
  (systemd.network(5)).
*/
{ lib }:
let
  inherit (lib) mkOption types;
  ip = import ../lib/ip.nix;
  fromBoth = {
    none = false;
    both = true;
    ipv4 = "ipv4";
    ipv6 = "ipv6";
  };
  families = types.enum [
    "none"
    "ipv4"
    "ipv6"
    "both"
  ];
in
rec {
  options = config: {
    addresses = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "192.0.2.10/24"
        "2001:db8::10/64"
      ];
      description = "Its addresses, each with the prefix length of its network.";
    };
    mtu = mkOption {
      type = types.nullOr (types.ints.between 68 65535);
      default = null;
      example = 9000;
      description = "Largest packet in bytes; null: the device's default.";
    };
    dhcp = mkOption {
      type = families;
      default = "none";
      example = "ipv4";
      description = "Whether to ask for addresses by DHCP.";
    };
    acceptRA = mkOption {
      type = types.bool;
      default = config.dhcp == "ipv6" || config.dhcp == "both";
      defaultText = lib.literalMD "true where {option}`dhcp` is \"ipv6\" or \"both\"";
      example = true;
      description = ''
        Take addresses and a default route from IPv6 routers' advertisements.
        DHCP for IPv6 starts when such an advertisement comes.
      '';
    };
    linkLocal = mkOption {
      type = families;
      default = "ipv6";
      example = "none";
      description = "Whether to have link-local addresses.";
    };
    requiredForOnline = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether the machine counts as online only once this interface is up.";
    };
  };

  # Names are the kernel's: at most 15 bytes, none of them a slash or a blank.
  isName = name: builtins.match "[A-Za-z0-9_.:-]{1,15}" name != null && name != "." && name != "..";
  nameRule = "write 1 to 15 of letters, digits and _ . : -";

  problems =
    option: name: d:
    let
      parsed = map ip.parsePrefix d.addresses;
      hasIPv6 =
        d.dhcp == "ipv6"
        || d.dhcp == "both"
        || d.acceptRA
        || lib.any (a: a != null && a.family == 6) parsed;
    in
    [
      {
        assertion = isName name;
        message = "${option}: \"${name}\" cannot be the name of an interface; ${nameRule}.";
      }
      {
        assertion = d.mtu == null || d.mtu >= 1280 || !hasIPv6;
        message = "${option}.mtu: ${toString d.mtu} is too little for IPv6, which needs 1280 or more (RFC 8200).";
      }
    ]
    ++ map (
      text:
      let
        prefix = ip.parsePrefix text;
        bare = ip.parse text;
      in
      {
        assertion = prefix != null && isHost prefix;
        message =
          if bare != null then
            "${option}.addresses: \"${text}\" has no prefix length; write ${text}/${toString (if bare.family == 4 then 24 else 64)}, or the length that its network has."
          else if prefix == null then
            "${option}.addresses: \"${text}\" is not an address with a prefix length; write one such as 192.0.2.10/24 or 2001:db8::10/64."
          else
            "${option}.addresses: \"${text}\" names no single host; write the address of a host in ${(ip.network prefix).text}.";
      }
    ) d.addresses
    ++ lib.mapAttrsToList (
      text: found: {
        assertion = lib.length found == 1;
        message = "${option}.addresses: ${text} is there ${toString (lib.length found)} times; name it once.";
      }
    ) (lib.groupBy (a: a.text) (lib.filter (a: a != null) parsed));

  # Neither the network itself nor its broadcast address; of an IPv4 network with
  # more than two addresses.
  isHost =
    prefix:
    let
      address = ip.parse (lib.head (lib.splitString "/" prefix.text));
      isLast = ip.last prefix == address.text;
      isFirst = ip.host prefix 0 == address.text;
      small = prefix.bits - prefix.length < 2;
    in
    (ip.isUnicast address.text || ip.isLoopback address.text)
    && (prefix.family == 6 || small || !(isFirst || isLast));

  # { <canonical address> = [ name of a device ]; }
  holders =
    devices:
    lib.mapAttrs (_: map (use: use.name)) (
      lib.groupBy (use: use.address) (
        lib.concatLists (
          lib.mapAttrsToList (
            name: d:
            lib.concatMap (
              text:
              let
                prefix = ip.parsePrefix text;
              in
              lib.optional (prefix != null) {
                inherit name;
                address = lib.head (lib.splitString "/" prefix.text);
              }
            ) d.addresses
          ) devices
        )
      )
    );

  network =
    name: d:
    let
      canonical =
        text:
        let
          prefix = ip.parsePrefix text;
        in
        if prefix == null then text else prefix.text;
    in
    {
      matchConfig.Name = name;
      linkConfig =
        lib.optionalAttrs (d.mtu != null) { MTUBytes = toString d.mtu; }
        // (
          if !d.requiredForOnline then
            { RequiredForOnline = false; }
          # It never gets the address that "online" means elsewhere.
          else if d.addresses == [ ] && d.dhcp == "none" && !d.acceptRA && d.linkLocal == "none" then
            { RequiredForOnline = "carrier"; }
          else
            { }
        );
      networkConfig = {
        DHCP = fromBoth.${d.dhcp};
        IPv6AcceptRA = d.acceptRA;
        LinkLocalAddressing = fromBoth.${d.linkLocal};
      }
      # Others put addresses on the loopback too, which a restart of networkd
      # would take away.
      // lib.optionalAttrs (name == "lo") { KeepConfiguration = "static"; };
      address = map canonical d.addresses;
    };

  # What a machine has as soon as networkd runs its network.
  networkd = {
    systemd.network = {
      enable = true;
      # Routes of routing daemons and the like are not networkd's to remove.
      config.networkConfig.ManageForeignRoutes = lib.mkDefault false;
    };
    networking.useNetworkd = lib.mkDefault true;
    # Stronger than the mkDefault of a generated hardware-configuration.nix.
    networking.useDHCP = lib.mkOverride 900 false;
  };
}
