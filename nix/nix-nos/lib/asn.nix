{
  /*
    Whether a speaker may use this AS number. Reserved are 0 (RFC 7607), 23456
    (AS_TRANS, RFC 6793), 65535 and 4294967295 (RFC 7300).
  */
  isUsable =
    asn:
    builtins.isInt asn
    && asn >= 1
    && asn < 4294967295
    && asn != 23456
    && asn != 65535;

  # What a message says after the number itself.
  rule = "an AS number is 1 to 4294967294, without the reserved 23456 and 65535 (private use: 64512 to 65534)";
}
