/*
  What follows from a topology for one of its nodes, whose name is `self`. All
  of it is pure: every node of a network comes to the same conclusions.

  topology: { nodes; links; }, as config.nix-nos.topology.
*/
{ topology, self }:
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    filter
    head
    listToAttrs
    map
    ;
  ip = import ./ip.nix;
  inherit (topology) nodes;
  own = nodes.${self};

  families = [
    {
      number = 4;
      name = "ipv4";
    }
    {
      number = 6;
      name = "ipv6";
    }
  ];

  # The first address of a family, without its length, or null.
  firstOf =
    family: texts:
    let
      parsed = map (
        text:
        let
          prefix = ip.parsePrefix text;
        in
        if prefix == null then ip.parse text else ip.parse (head (builtins.split "/" prefix.text))
      ) texts;
      found = filter (a: a != null && a.family == family) parsed;
    in
    if found == [ ] then null else (head found).text;

  # [ { near; far; } ]: the ends of the links that this node is at.
  ends = concatMap (
    link:
    if link.a.node == self then
      [
        {
          near = link.a;
          far = link.b;
        }
      ]
    else if link.b.node == self then
      [
        {
          near = link.b;
          far = link.a;
        }
      ]
    else
      [ ]
  ) topology.links;

  session =
    {
      name,
      node,
      near,
      far,
    }:
    concatMap (
      family:
      let
        localAddress = firstOf family.number near;
        address = firstOf family.number far;
      in
      if localAddress == null || address == null then
        [ ]
      else
        [
          {
            name = "${name}-${family.name}";
            value = {
              inherit address localAddress;
              inherit (nodes.${node}) asn;
              families = [ family.name ];
              # One side waits, or both can collide for most of a minute.
              passive = node < self;
              # The other side does not try.
              timers.connectRetry = 5;
            };
          }
        ]
    ) families;

  neighbors = filter (end: nodes ? ${end.far.node} && end.far.node != self) ends;
  # Those of the same AS, by name.
  colleagues = filter (name: name != self && own.asn != null && nodes.${name}.asn == own.asn) (
    attrNames nodes
  );
in
{
  inherit ends neighbors colleagues;

  # { <peer> = { address; localAddress; asn; families; passive; }; }
  overLinks = listToAttrs (
    concatMap (
      end:
      session {
        name = "${end.far.node}-${end.near.interface}";
        inherit (end.far) node;
        near = end.near.addresses;
        far = end.far.addresses;
      }
    ) neighbors
  );
  mesh = listToAttrs (
    concatMap (
      node:
      session {
        name = node;
        inherit node;
        near = own.addresses;
        far = nodes.${node}.addresses;
      }
    ) colleagues
  );

  # Whether two lists of addresses have a family in common.
  meet =
    a: b:
    builtins.any (family: firstOf family.number a != null && firstOf family.number b != null) families;

  routerId = firstOf 4 (own.addresses ++ concatLists (map (end: end.near.addresses) ends));
}
