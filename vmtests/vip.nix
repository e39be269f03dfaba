# A router learns a VIP from the nodes that serve it, and from no others.
{ nixosModule, cluster, ... }:
let
  machines = import ./machines.nix { inherit nixosModule cluster; };
  expect = builtins.toJSON (import ./expect.nix);
in
{
  name = "plasmacloud-vip";

  nodes = {
    inherit (machines) router client;
    node01 = machines.node "node01";
    node02 = machines.node "node02";
  };

  testScript = ''
    import json

    expect = json.loads(${builtins.toJSON expect})
    vip, always, vip6 = [expect["vips"][name]["address"] for name in ["web", "always", "web6"]]
    hops = expect["nextHops"]
    node01_hop, node02_hop = hops["node01"]["ipv4"], hops["node02"]["ipv4"]


    def learned(address: str, node: str) -> str:
        length = 128 if ":" in address else 32
        return f"birdc show route {address}/{length} | grep -F 'via {node} on'"


    def wait_until_learned(address: str, node: str) -> None:
        router.wait_until_succeeds(learned(address, node), timeout=60)


    def wait_until_withdrawn(address: str, node: str) -> None:
        router.wait_until_fails(learned(address, node), timeout=60)


    start_all()
    router.wait_for_unit("bird.service")
    for machine in [node01, node02]:
        machine.wait_for_unit("nginx.service")
        machine.wait_for_unit("plasmacloud-announcer.service")

    with subtest("the router learns every VIP from every node"):
        for node in ["node01", "node02"]:
            wait_until_learned(vip, hops[node]["ipv4"])
            wait_until_learned(always, hops[node]["ipv4"])
            wait_until_learned(vip6, hops[node]["ipv6"])
        for wanted in expect["vips"].values():
            for community in wanted["communities"]:
                pair = community.replace(":", ",")
                router.succeed(f"birdc 'show route all where net = {wanted['address']}/32' | grep -F '({pair})'")

    with subtest("a client reaches the VIP through the router"):
        client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        client.wait_until_succeeds(f"curl --fail --max-time 5 'http://[{vip6}]:8080/'", timeout=60)

    with subtest("a node whose web server fails is no longer announced, and the other one serves"):
        node01.systemctl("stop nginx.service")
        wait_until_withdrawn(vip, node01_hop)
        router.succeed(learned(always, node01_hop))
        answer = client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        assert "node02" in answer, answer
        node01.wait_until_fails(f"ip address show dev lo | grep -F {vip}/", timeout=60)
        node01.systemctl("start nginx.service")
        wait_until_learned(vip, node01_hop)

    with subtest("a restart of gobgpd loses no VIP"):
        node01.systemctl("restart gobgpd.service")
        node01.wait_for_unit("gobgpd.service")
        for address in [vip, always]:
            wait_until_learned(address, node01_hop)

    with subtest("a VIP that is drained is withdrawn first and let go of later, until it is taken back"):
        node01.succeed(f"plasmactl vip drain {always} --reason 'the test'")
        wait_until_withdrawn(always, node01_hop)
        router.succeed(learned(vip, node01_hop))
        node01.succeed(f"ip address show dev lo | grep -F {always}/")
        node01.wait_until_fails(f"ip address show dev lo | grep -F {always}/", timeout=60)
        node01.systemctl("restart plasmacloud-announcer.service")
        node01.wait_for_unit("plasmacloud-announcer.service")
        wait_until_learned(vip, node01_hop)
        router.fail(learned(always, node01_hop))
        node01.succeed(f"plasmactl vip undrain {always}")
        wait_until_learned(always, node01_hop)

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
        wait_until_withdrawn(always, node02_hop)
        node02.succeed(f"ip address show dev lo | grep -F {always}/")
        node02.wait_until_fails(f"ip address show dev lo | grep -F {always}/", timeout=60)
        answer = client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        assert "node01" in answer, answer
  '';
}
