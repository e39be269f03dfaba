# The scenarios that sites.json has for this test, on machines: two nodes and a router,
# a client behind it, and the deployer. Beside them what no scenario says: communities,
# that a restart of the announcer moves nothing, and that one that stops withdraws first.
{ nixosModule, cluster, ... }:
let
  machines = import ./machines.nix { inherit nixosModule cluster; };
  expect = builtins.toJSON (import ./expect.nix);
  scenarios = builtins.toJSON (import ./scenarios.nix "vip.nix");
in
{
  name = "plasmacloud-vip";

  nodes = {
    inherit (machines) router client deployer;
    node01 = machines.node "node01";
    node02 = machines.node "node02";
  };

  # scenario.py has tests of its own, and no types.
  skipTypeCheck = true;
  testScript = ''
    ${builtins.readFile ./scenario.py}

    expect = json.loads(${builtins.toJSON expect})
    vip, always, vip6 = [expect["vips"][name]["address"] for name in ["web", "always", "web6"]]
    site = Site(expect, {"node01": node01, "node02": node02}, router, client, deployer)


    for name, text in json.loads(${builtins.toJSON scenarios}).items():
        with subtest(name):
            site.play(name, text)

    with subtest("the router has every VIP with its communities"):
        for wanted in expect["vips"].values():
            for community in wanted["communities"]:
                pair = community.replace(":", ",")
                router.succeed(f"birdc 'show route all where net = {wanted['address']}/32' | grep -F '({pair})'")

    with subtest("a client reaches an IPv6 VIP through the router"):
        client.wait_until_succeeds(f"curl --fail --max-time 5 'http://[{vip6}]:8080/'", timeout=60)

    with subtest("a restart of the announcer moves no route and no address"):
        node01.succeed("ip monitor address > /tmp/moved & echo $! > /tmp/monitor")
        updates = "birdc show protocols all | grep -E 'Import (updates|withdraws):'"
        before = router.succeed(updates)
        for _ in range(3):
            node01.systemctl("restart plasmacloud-announcer.service")
            node01.wait_for_unit("plasmacloud-announcer.service")
        node01.sleep(5)
        assert router.succeed(updates) == before, before
        node01.succeed(f"kill $(cat /tmp/monitor) && ! grep -F -e {vip} -e {always} -e {vip6} /tmp/moved")

    with subtest("an announcer that stops withdraws first, and lets go of the addresses later"):
        node02.systemctl("stop --no-block plasmacloud-announcer.service")
        router_has_via(site, "router", "has", always, "via", "node01")
        node02.succeed(f"ip address show dev lo | grep -F {always}/")
        node02.wait_until_fails(f"ip address show dev lo | grep -F {always}/", timeout=60)
        answer = client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        assert "node01" in answer, answer
  '';
}
