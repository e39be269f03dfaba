{ lib, config, ... }:
let
  inherit (lib) mkOption types;
  ip = import ../lib/ip.nix;
  asn = import ../lib/asn.nix;
  cfg = config.nix-nos.topology;
  option = "nix-nos.topology.nodes";

  problems =
    name: node:
    map (address: {
      assertion = ip.isAddress address;
      message = "${option}.${name}.addresses: \"${address}\" is not an IP address; write one such as 192.0.2.1 or 2001:db8::1, without a prefix length.";
    }) node.addresses
    ++ lib.optional (node.asn != null) {
      assertion = asn.isUsable node.asn;
      message = "${option}.${name}.asn: ${toString node.asn} cannot be used; ${asn.rule}.";
    };
in
{
  options.nix-nos.topology.nodes = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          addresses = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [
              "192.0.2.1"
              "2001:db8::1"
            ];
            description = "Addresses of the node, the preferred one first.";
          };
          asn = mkOption {
            type = types.nullOr types.int;
            default = null;
            example = 64512;
            description = "The autonomous system that the node belongs to.";
          };
        };
      }
    );
    default = { };
    example = lib.literalExpression ''
      {
        spine1 = {
          addresses = [ "192.0.2.1" ];
          asn = 64512;
        };
      }
    '';
    description = ''
      The machines of the network, by name. Other modules look a node up here:
      a BGP peer of the same name takes its address and AS number from it.
    '';
  };

  config.assertions = lib.concatLists (lib.mapAttrsToList problems cfg.nodes);
}
