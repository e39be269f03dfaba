# The type of what a text format can say, under the name that the format has.
{ lib }:
description: nullable:
let
  inherit (lib) types;
  plain = types.oneOf [
    types.bool
    types.int
    types.float
    types.str
    types.path
    (types.attrsOf value)
    (types.listOf value)
  ];
  value = (if nullable then types.nullOr plain else plain) // {
    inherit description;
  };
in
value
