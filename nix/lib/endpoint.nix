/*
  HOST:PORT and URLs as text. What passes here, the Go programs take: net/url
  and net.SplitHostPort refuse what is not well-formed in ways of their own.
*/
{ lib }:
let
  inherit (builtins)
    elemAt
    head
    match
    stringLength
    ;
  ip = import ../nix-nos/lib/ip.nix;

  port = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
  hostPattern = "(\\[([0-9a-fA-F:.]+)]|[0-9A-Za-z._-]+)";

  # The address between brackets, an IPv4 address, or a name; else null.
  host =
    given: bracketed:
    if bracketed != null then
      if ip.isIPv6 bracketed then bracketed else null
    else if match "[0-9.]+" given != null then
      if ip.isIPv4 given then given else null
    else if
      stringLength given <= 253
      && lib.all (label: match "[0-9A-Za-z_-]{1,63}" label != null) (
        lib.splitString "." (lib.removeSuffix "." given)
      )
    then
      given
    else
      null;

  # Printable, without blanks, and each % the start of an escape.
  isPath =
    text:
    match "[!-~]*" text != null
    && match ".*%([^0-9a-fA-F].*|.[^0-9a-fA-F].*|.?)" text == null;

  # "http://[::1]:80/path" -> { host; path; }, or null. No user and no password.
  parseUrl =
    url:
    let
      parts = match "https?://${hostPattern}(:${port})?([/?#].*)?" url;
      found = host (head parts) (elemAt parts 1);
      path = if elemAt parts 4 == null then "" else elemAt parts 4;
    in
    # Longer than any in use, and short enough for every regular expression.
    if stringLength url > 2048 || parts == null || found == null || !(isPath path) then
      null
    else
      {
        host = found;
        inherit path;
      };
in
{
  inherit port;

  # A name, or an IPv4 address.
  isHostName = text: match "[0-9A-Za-z._-]{1,253}" text != null && host text null != null;

  # "127.0.0.1:80" or "[::1]:80" -> the host, or null.
  hostOf =
    endpoint:
    let
      parts = match "${hostPattern}:${port}" endpoint;
    in
    if stringLength endpoint > 300 || parts == null then
      null
    else
      host (head parts) (elemAt parts 1);

  hostOfUrl =
    url:
    let
      parsed = parseUrl url;
    in
    if parsed == null then null else parsed.host;

  # What a path can be appended to: no query, no fragment, no slash at the end.
  isBaseUrl =
    url:
    let
      parsed = parseUrl url;
    in
    parsed != null && match "(/[^?#]*[^/?#])?" parsed.path != null;
}
