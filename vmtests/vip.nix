# A router learns a VIP from the nodes that serve it, and from no others.
{ nixosModule, cluster, ... }:
let
  machines = import ./machines.nix { inherit nixosModule cluster; };
in
{
  name = "plasmacloud-vip";

  nodes = {
    inherit (machines) router client;
    node01 = machines.node "node01";
    node02 = machines.node "node02";
  };

  testScript = ''
    vip = "203.0.113.10"  # announced while the web server answers
    always = "203.0.113.20"  # announced while the node is up
    vip6 = "2001:db8:0:2::10"
    nodes = {"10.0.0.11": node01, "10.0.0.12": node02}


    def learned(address: str, node: str) -> str:
        length = 128 if ":" in address else 32
        return f"birdc show route {address}/{length} | grep -F 'via {node} on'"


    def wait_until_learned(address: str, node: str) -> None:
        router.wait_until_succeeds(learned(address, node), timeout=60)


    def wait_until_withdrawn(address: str, node: str) -> None:
        router.wait_until_fails(learned(address, node), timeout=60)


    start_all()
    router.wait_for_unit("bird.service")
    for machine in nodes.values():
        machine.wait_for_unit("nginx.service")
        machine.wait_for_unit("plasmacloud-announcer.service")

    with subtest("the router learns every VIP from every node"):
        for node in nodes:
            wait_until_learned(vip, node)
            wait_until_learned(always, node)
        for node in ["2001:db8:0:1::11", "2001:db8:0:1::12"]:
            wait_until_learned(vip6, node)

    with subtest("a client reaches the VIP through the router"):
        client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        client.wait_until_succeeds(f"curl --fail --max-time 5 'http://[{vip6}]:8080/'", timeout=60)

    with subtest("a node whose web server fails is no longer announced, and the other one serves"):
        node01.systemctl("stop nginx.service")
        wait_until_withdrawn(vip, "10.0.0.11")
        router.succeed(learned(always, "10.0.0.11"))
        answer = client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        assert "node02" in answer, answer
        node01.wait_until_fails(f"ip address show dev lo | grep -F {vip}/", timeout=60)
        node01.systemctl("start nginx.service")
        wait_until_learned(vip, "10.0.0.11")

    with subtest("a restart of gobgpd loses no VIP"):
        node01.systemctl("restart gobgpd.service")
        node01.wait_for_unit("gobgpd.service")
        for address in [vip, always]:
            wait_until_learned(address, "10.0.0.11")

    with subtest("a VIP that is drained is withdrawn first and let go of later, until it is taken back"):
        node01.succeed(f"plasmactl vip drain {always} --reason 'the test'")
        wait_until_withdrawn(always, "10.0.0.11")
        router.succeed(learned(vip, "10.0.0.11"))
        node01.succeed(f"ip address show dev lo | grep -F {always}/")
        node01.wait_until_fails(f"ip address show dev lo | grep -F {always}/", timeout=60)
        node01.systemctl("restart plasmacloud-announcer.service")
        node01.wait_for_unit("plasmacloud-announcer.service")
        wait_until_learned(vip, "10.0.0.11")
        router.fail(learned(always, "10.0.0.11"))
        node01.succeed(f"plasmactl vip undrain {always}")
        wait_until_learned(always, "10.0.0.11")

    with subtest("a restart of the announcer moves no route and no address"):
        node01.succeed("ip monitor address > /tmp/moved & echo $! > /tmp/monitor")
        updates = "birdc show protocols all | grep -E 'Import (updates|withdraws):'"
        before = router.succeed(updates)
        for _ in range(3):
            node01.systemctl("restart plasmacloud-announcer.service")
            node01.wait_for_unit("plasmacloud-announcer.service")
        node01.sleep(5)
        assert router.succeed(updates) == before, before
        node01.succeed("kill $(cat /tmp/monitor) && ! grep -F -e 203.0.113. -e 2001:db8:0:2: /tmp/moved")

    with subtest("an announcer that stops withdraws first, and lets go of the addresses later"):
        node02.systemctl("stop --no-block plasmacloud-announcer.service")
        wait_until_withdrawn(always, "10.0.0.12")
        node02.succeed(f"ip address show dev lo | grep -F {always}/")
        node02.wait_until_fails(f"ip address show dev lo | grep -F {always}/", timeout=60)
        answer = client.wait_until_succeeds(f"curl --fail --max-time 5 http://{vip}:8080/", timeout=60)
        assert "node01" in answer, answer
  '';
}
