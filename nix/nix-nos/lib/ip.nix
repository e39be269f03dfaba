/*
  IP addresses and prefixes as text, without a derivation: parsed by regular
  expression, given back in the canonical form of RFC 5952.

  An address is { family = 4 | 6; bits; groups; text; }: groups are integers of
  8 bits (IPv4) or 16 bits (IPv6), bits is 32 or 128. A prefix is an address
  with { length; }. What does not parse is null: a module turns that into a
  message of its own.
*/
let
  inherit (builtins)
    all
    concatStringsSep
    elemAt
    filter
    foldl'
    genList
    head
    isString
    length
    match
    split
    stringLength
    substring
    ;

  # Decimal, no leading zero: 010 is eight to one reader and ten to another.
  decimal = text: builtins.fromJSON text;
  octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  v4Pattern = "${octet}\\.${octet}\\.${octet}\\.${octet}";

  mod = a: b: a - b * (a / b);

  # A byte at a time, of a table: clusters have many addresses.
  digits = genList (i: substring i 1 "0123456789abcdef") 16;
  bytes = builtins.concatMap (high: map (low: high + low) digits) digits;
  valueOf =
    let
      table =
        texts:
        builtins.listToAttrs (
          genList (value: {
            name = elemAt texts value;
            inherit value;
          }) (length texts)
        );
    in
    table digits // table bytes;
  # Of one to four digits in lower case.
  fromHex =
    text:
    let
      high = stringLength text - 2;
    in
    if high <= 0 then
      valueOf.${text}
    else
      valueOf.${substring 0 high text} * 256 + valueOf.${substring high 2 text};
  toHex =
    n:
    if n < 16 then
      elemAt digits n
    else if n < 256 then
      elemAt bytes n
    else
      toHex (n / 256) + elemAt bytes (mod n 256);

  toLower = builtins.replaceStrings [ "A" "B" "C" "D" "E" "F" ] [ "a" "b" "c" "d" "e" "f" ];

  fields = separator: text: filter isString (split separator text);

  parse4 =
    text:
    let
      octets = match v4Pattern text;
    in
    if octets == null then
      null
    else
      {
        family = 4;
        bits = 32;
        groups = map decimal octets;
        inherit text;
      };

  # Half of an IPv6 address, on one side of "::": a list of groups, or null.
  parseHalf =
    mayEndIn4: text:
    if text == "" then
      [ ]
    else
      let
        parts = fields ":" text;
        count = length parts;
        final = elemAt parts (count - 1);
        v4 = if mayEndIn4 then parse4 final else null;
        hexParts = if v4 == null then parts else genList (elemAt parts) (count - 1);
        octet = elemAt v4.groups;
      in
      if !(all (part: match "[0-9a-f]{1,4}" part != null) hexParts) then
        null
      else
        map fromHex hexParts
        ++ (
          if v4 == null then
            [ ]
          else
            [
              (octet 0 * 256 + octet 1)
              (octet 2 * 256 + octet 3)
            ]
        );

  parse6 =
    text:
    let
      halves = fields "::" (toLower text);
      left = parseHalf (length halves == 1) (head halves);
      right = parseHalf true (elemAt halves 1);
      gap = 8 - length left - length right;
      groups =
        if length halves == 1 then
          if left == null || length left != 8 then null else left
        else if length halves != 2 || left == null || right == null || gap < 1 then
          null
        else
          left ++ genList (_: 0) gap ++ right;
    in
    # The longest text is that of eight groups with an IPv4 tail.
    if stringLength text > 45 || match "[0-9a-fA-F:.]*:[0-9a-fA-F:.]*" text == null || groups == null then
      null
    else
      {
        family = 6;
        bits = 128;
        inherit groups;
        text = show6 groups;
      };

  show6 =
    groups:
    let
      # The first of the longest runs of zero groups, RFC 5952 section 4.2.
      runs =
        foldl'
          (
            acc: i:
            let
              run = if elemAt groups i == 0 then acc.run + 1 else 0;
            in
            {
              inherit run;
              best = if run > acc.best then run else acc.best;
              end = if run > acc.best then i + 1 else acc.end;
            }
          )
          {
            run = 0;
            best = 0;
            end = 0;
          }
          [
            0
            1
            2
            3
            4
            5
            6
            7
          ];
      start = runs.end - runs.best;
      show = from: to: concatStringsSep ":" (genList (i: toHex (elemAt groups (from + i))) (to - from));
      mapped = runs.best >= 5 && start == 0 && elemAt groups 5 == 65535;
      byte = i: n: if mod i 2 == 0 then n / 256 else mod n 256;
    in
    if mapped then
      "::ffff:${
        concatStringsSep "." (
          genList (i: toString (byte i (elemAt groups (6 + i / 2)))) 4
        )
      }"
    else if runs.best < 2 then
      show 0 8
    else
      "${show 0 start}::${show runs.end 8}";

  parse =
    text:
    if !(isString text) then
      null
    else
      let
        v4 = parse4 text;
      in
      if v4 != null then v4 else parse6 text;

  parsePrefix =
    text:
    let
      parts = if isString text then match "([^/]+)/(0|[1-9][0-9]{0,2})" text else null;
      address = parse (head parts);
      len = decimal (elemAt parts 1);
    in
    if parts == null || address == null || len > address.bits then
      null
    else
      address
      // {
        length = len;
        text = "${address.text}/${toString len}";
      };

  powers = [
    1
    2
    4
    8
    16
    32
    64
    128
    256
    512
    1024
    2048
    4096
    8192
    16384
    32768
    65536
  ];

  # 2 to the number of bits of group i that are behind the first `len` bits.
  freeIn =
    len: address: i:
    let
      width = address.bits / length address.groups;
      free = (i + 1) * width - len;
    in
    elemAt powers (
      if free <= 0 then
        0
      else if free >= width then
        width
      else
        free
    );

  eachGroup = f: address: genList (i: f i (elemAt address.groups i)) (length address.groups);

  # The groups, with nothing set behind the first `len` bits.
  masked = len: address: eachGroup (i: n: n - mod n (freeIn len address i)) address;

  # Whether nothing is set behind the prefix length.
  isNetwork = prefix: masked prefix.length prefix == prefix.groups;

  show = family: groups: if family == 4 then concatStringsSep "." (map toString groups) else show6 groups;

  # The prefix of the network that an address with a length is in.
  network =
    prefix:
    let
      groups = masked prefix.length prefix;
    in
    prefix
    // {
      inherit groups;
      text = "${show prefix.family groups}/${toString prefix.length}";
    };

  # Whether an address, or all of another prefix, is in the network of a prefix.
  contains =
    prefix: other:
    prefix.family == other.family
    && other.length or other.bits >= prefix.length
    && masked prefix.length other == masked prefix.length prefix;

  # The last address of a network, as text: the broadcast address of an IPv4 one.
  last =
    prefix:
    show prefix.family (
      eachGroup (i: n: n + freeIn prefix.length prefix i - 1) (network prefix)
    );

  /*
    The nth address of a network, as text: 0 is that of the network itself. Only
    the last group is counted in, so n must fit into it.
  */
  host =
    prefix: n:
    let
      inherit (network prefix) groups;
      final = length groups - 1;
    in
    show prefix.family (
      genList (i: elemAt groups i + (if i == final then n else 0)) (length groups)
    );

  /*
    A single address, written as an address or as a prefix of full length
    (203.0.113.10 or 203.0.113.10/32): { address; prefix; family; }, or null.
  */
  parseHost =
    text:
    let
      whole = parse text;
      prefix = parsePrefix text;
      bare = head (fields "/" text);
      address = if whole != null then whole else parse bare;
    in
    if whole == null && (prefix == null || prefix.length != prefix.bits) then
      null
    else
      {
        inherit (address) family;
        address = address.text;
        prefix = "${address.text}/${toString address.bits}";
      };

  firstGroup = address: head address.groups;

  # Names a single host: not unspecified, multicast, broadcast or IPv4-mapped.
  isUnicast =
    text:
    let
      address = parse text;
    in
    address != null
    && (
      if address.family == 4 then
        firstGroup address != 0 && firstGroup address < 224
      else
        firstGroup address < 65280
        && address.text != "::"
        && match "::ffff:.*\\..*" address.text == null
    );
  isLoopback =
    text:
    let
      address = parse text;
    in
    address != null && (if address.family == 4 then firstGroup address == 127 else address.text == "::1");
  # Valid on one link only: 169.254.0.0/16 and fe80::/10.
  isLinkLocal =
    text:
    let
      address = parse text;
    in
    address != null
    && (
      if address.family == 4 then
        firstGroup address == 169 && elemAt address.groups 1 == 254
      else
        firstGroup address / 64 == 1018
    );
in
{
  inherit
    parse
    parsePrefix
    parseHost
    network
    contains
    host
    last
    isNetwork
    isUnicast
    isLoopback
    isLinkLocal
    ;

  # What can be announced to others.
  isGlobal = text: isUnicast text && !(isLoopback text) && !(isLinkLocal text);

  # null or the canonical text.
  canonical =
    text:
    let
      address = parse text;
    in
    if address == null then null else address.text;
  # The canonical text, or what was given: for what is evaluated before an
  # assertion has had its say.
  canonicalOrGiven =
    text:
    let
      address = parse text;
    in
    if address == null then text else address.text;
  canonicalPrefix =
    text:
    let
      prefix = parsePrefix text;
    in
    if prefix == null then null else prefix.text;

  isAddress = text: parse text != null;
  isIPv4 = text: isString text && parse4 text != null;
  isIPv6 = text: isString text && parse6 text != null;
}
