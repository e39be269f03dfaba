# Names and labels as text.
let
  inherit (builtins) match stringLength;
in
{
  # A host name label (RFC 1123).
  isHostLabel = text: match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" text != null;
  hostRule = "use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends (RFC 1123)";

  # "rack", "example.org/rack"
  isKey =
    text:
    stringLength text <= 127
    && match "([0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z])?/)?[0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z])?" text
    != null;
  keyRule = "use 1 to 63 of letters, digits, . _ and -, with a letter or digit at both ends, and at most one such word with a / before it";

  isValue =
    text: stringLength text <= 63 && match "([0-9A-Za-z]([0-9A-Za-z._-]*[0-9A-Za-z])?)?" text != null;
  valueRule = "use at most 63 of letters, digits, . _ and -, with a letter or digit at both ends";
}
