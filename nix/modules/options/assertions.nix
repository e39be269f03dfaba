# The two options of NixOS that cluster modules may set, for the evaluation of
# a cluster without NixOS.
{ lib, ... }:
{
  options = {
    assertions = lib.mkOption {
      type = lib.types.listOf lib.types.unspecified;
      default = [ ];
      example = [
        {
          assertion = false;
          message = "what is wrong, and the mend";
        }
      ];
      description = "Conditions that must hold, each with the message for when it does not.";
    };
    warnings = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "what may not be meant" ];
      description = "Messages for the operator that stop nothing.";
    };
  };
}
