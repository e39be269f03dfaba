# A router in plasmacloud.cluster: its options, and what can be wrong with it.
{ lib }:
let
  inherit (lib) mkOption types;
  ip = import ../../nix-nos/lib/ip.nix;
  asn = import ../../nix-nos/lib/asn.nix;

  submodule.options = {
    address = mkOption {
      type = types.str;
      example = "10.0.0.1";
      description = "Address of the router, IPv4 or IPv6.";
    };
    asn = mkOption {
      type = types.int;
      example = 65000;
      description = "AS number of the router.";
    };
    description = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "top of rack, left";
      description = "What the router is, for those who read the speaker's output.";
    };
    passive = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Wait for the router to connect. Where both sides connect, make one of them passive.";
    };
    multihop = mkOption {
      type = types.nullOr (types.ints.between 2 255);
      default = null;
      example = 2;
      description = "TTL for a router that is not on a connected network; null: directly connected.";
    };
  };
in
rec {
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

  checkAddress = name: address: {
    assertion = ip.isUnicast address && !(ip.isLoopback address);
    message =
      if ip.isAddress address then
        "${name}: \"${address}\" names no single host; write the address of a network interface."
      else
        "${name}: \"${address}\" is not an IP address; write one such as 10.0.0.11 or 2001:db8::11, without a prefix length.";
  };

  # Of all peers in the option of that name.
  problems =
    name: set:
    lib.concatLists (
      lib.mapAttrsToList (peer: p: [
        (checkAddress "${name}.${peer}.address" p.address)
        {
          assertion = !(ip.isLinkLocal p.address);
          message = "${name}.${peer}.address: \"${p.address}\" is link-local, and does not say on which interface; write an address of the router that is valid beyond the link.";
        }
        {
          assertion = asn.isUsable p.asn;
          message = "${name}.${peer}.asn: ${toString p.asn} cannot be used; ${asn.rule}.";
        }
      ]) set
    );
}
