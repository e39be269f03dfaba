# A router in plasmacloud.cluster: a peer of nix-nos.bgp, and what can be wrong
# with one that several nodes have, and that gobgpd speaks with.
{
  lib,
  # The configuration of plasmacloud.cluster.
  cluster,
}:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  layer1 =
    where:
    import ../../nix-nos/modules/bgp/peer.nix {
      inherit lib where;
      bgp = {
        inherit (cluster.bgp) asn;
        # As it is unless a node's own nix-nos.bgp says otherwise.
        gracefulRestart.enable = true;
      };
      topology = lib.mapAttrs (_: n: {
        addresses = [ n.ip ];
        inherit (cluster.bgp) asn;
      }) cluster.nodes;
    };
  inherit (layer1 "") submodule;

  defaults =
    (lib.evalModules {
      modules = [
        submodule
        {
          _module.args.name = "";
          asn = 1;
        }
      ];
    }).config;
  differing =
    given: usual:
    lib.filterAttrs (name: v: v != usual.${name} && v != { }) (
      lib.mapAttrs (
        name: v:
        if builtins.isAttrs v && builtins.isAttrs usual.${name} then differing v usual.${name} else v
      ) given
    );

  # Of the peer by that name in the option `where`.
  problemsOf =
    where: name: p:
    let
      option = "${where}.${name}";
      # What is wrong with the address is told here, in terms of a cluster.
      address = [
        (
          if p.interface == null && p.address != null then
            checkAddress "${option}.address" p.address
          else
            {
              assertion = false;
              message =
                if p.interface == null then
                  "${option}.address: not set; write the router's IP address."
                else
                  "${option}.interface: gobgpd, with which VIPs are announced, never finds a peer that comes up after it; leave interface at null, and write the router's IP address in address.";
            }
        )
        {
          assertion = !(ip.isLinkLocal p.address);
          message = "${option}.address: \"${toString p.address}\" is link-local, and does not say on which interface; write an address of the router that is valid beyond the link.";
        }
      ];
      right = lib.all (a: a.assertion) address;
    in
    address
    ++ (layer1 where).problems name (
      if right then
        p
      else
        p
        // {
          address = null;
          interface = "";
          multihop = null;
        }
    );

  checkAddress = name: address: {
    assertion = ip.isUnicast address && !(ip.isLoopback address);
    message =
      if ip.isAddress address then
        "${name}: \"${address}\" names no single host; write the address of a network interface."
      else
        "${name}: \"${address}\" is not an IP address; write one such as 10.0.0.11 or 2001:db8::11, without a prefix length.";
  };
in
{
  inherit checkAddress;

  option =
    description:
    mkOption {
      type = types.attrsOf (types.submodule submodule);
      default = { };
      example = lib.literalExpression ''
        {
          router1 = {
            address = "10.0.0.1";
            asn = 65000;
          };
        }
      '';
      inherit description;
    };

  # Of all peers in the option of that name.
  problems = where: set: lib.concatLists (lib.mapAttrsToList (problemsOf where) set);

  # The same for peers that several nodes have.
  sharedProblems =
    where: set:
    lib.concatLists (
      lib.mapAttrsToList (
        name: p:
        problemsOf where name p
        ++ lib.optional (p.localAddress != null) {
          assertion = false;
          message = "${where}.${name}.localAddress: \"${p.localAddress}\" can be the address of one node only; set the peer in bgp.peers of that node.";
        }
      ) set
    );

  # As the manifest has it: the address in canonical form, and of the rest what
  # is not nix-nos' own default, so that a node's modules can still set that.
  rendered =
    p:
    differing (removeAttrs p [
      "address"
      "asn"
      "passwordFile"
    ]) defaults
    // {
      address = ip.canonicalOrGiven p.address;
      inherit (p) asn;
    }
    // lib.optionalAttrs (p.passwordFile != null) { passwordFile = toString p.passwordFile; };
}
