let
  inherit (builtins)
    all
    fromJSON
    isString
    match
    ;
  number = "(0|[1-9][0-9]{0,9})";
  upTo =
    max: parts:
    parts != null && all (n: fromJSON n <= max) parts;
in
{
  /*
    Whether this is the text of a BGP community: two numbers of 16 bits (RFC
    1997, 65001:100) or three of 32 bits (large, RFC 8092, 65001:1:2).
  */
  isStandard = text: isString text && upTo 65535 (match "${number}:${number}" text);
  isLarge = text: isString text && upTo 4294967295 (match "${number}:${number}:${number}" text);

  rule = "write two numbers up to 65535, such as 65001:100, or three up to 4294967295, such as 65001:1:2";
}
