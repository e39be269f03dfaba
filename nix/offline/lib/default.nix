# The functions of this lib see each other through one fixed point, so that a
# file here may use what any other file defines.
let
  part = file: import file { inherit lib; };
  trivial = part ./trivial.nix;
  lists = part ./lists.nix;
  attrsets = part ./attrsets.nix;
  strings = part ./strings.nix;
  options = part ./options.nix;
  modules = part ./modules.nix;

  # What nixpkgs' lib has under its part only.
  notAtTop = [
    "defaultOrderPriority"
    "defaultOverridePriority"
    "escapeNixIdentifier"
    "escapeNixString"
    "evalOptionValue"
    "importApply"
    "isConvertibleWithToString"
    "levenshtein"
    "mergeAttrDefinitionsWithPrio"
    "mergeTypes"
    "renderOptionValue"
    "showDefs"
  ];

  lib =
    trivial
    // removeAttrs strings notAtTop
    // lists
    // attrsets
    // removeAttrs options notAtTop
    // removeAttrs modules notAtTop
    // {
      inherit
        trivial
        lists
        attrsets
        strings
        options
        modules
        ;
      generators = part ./generators.nix;
      types = part ./types.nix;
      inherit (lib.types) mkOptionType;
    };
in
lib
