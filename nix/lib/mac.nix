# Hardware addresses of network cards (48 bits) as text.
let
  inherit (builtins) match replaceStrings;
  upper = [ "A" "B" "C" "D" "E" "F" "-" ];
  lower = [ "a" "b" "c" "d" "e" "f" ":" ];
in
rec {
  # "52-54-00-12-34-56" -> "52:54:00:12:34:56", and what is none as it is.
  canonicalOrGiven = text: if isMac text then replaceStrings upper lower text else text;

  # Of one card: neither a group's (the lowest bit of the first byte) nor zeros.
  isMac =
    text:
    (
      match "[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}" text != null
      || match "[0-9a-fA-F][02468aceACE](-[0-9a-fA-F]{2}){5}" text != null
    )
    && match "(00[:-]){5}00" text == null;
}
