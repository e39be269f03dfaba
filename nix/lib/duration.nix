{ lib }:
let
  milliseconds = {
    ms = 1;
    s = 1000;
    m = 60000;
    h = 3600000;
  };
  # Few enough digits for any sum to be computed, and checked, exactly enough.
  pattern = "((0|[1-9][0-9]{0,7})(\\.[0-9]{1,8})?(ms|s|m|h))";
in
{
  type = lib.types.strMatching "${pattern}+";

  # Of a text of that type, in milliseconds: "1m30s" is 90000.
  parse =
    text:
    lib.foldl' (
      sum: part:
      if builtins.isList part then
        sum + builtins.fromJSON (builtins.head (builtins.match "([0-9.]+).*" (lib.head part))) * milliseconds.${lib.last part}
      else
        sum
    ) 0 (builtins.split pattern text);
}
