/*
  The texts of the scenarios that scenario/sites.json has for a site, by name.
*/
site:
let
  sites = builtins.fromJSON (builtins.readFile ./scenario/sites.json);
  names = builtins.filter (name: builtins.elem site sites.${name}) (builtins.attrNames sites);
in
builtins.listToAttrs (
  map (name: {
    inherit name;
    value = builtins.readFile (./scenario/catalogue + "/${name}.txtar");
  }) names
)
