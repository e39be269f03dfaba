# Two nodes phone home and become Active; the deployer remembers them. Then the
# scenarios that sites.json has for this test.
{ nixosModule, cluster, ... }:
let
  machines = import ./machines.nix { inherit nixosModule cluster; };
  expect = builtins.toJSON (import ./expect.nix);
  scenarios = builtins.toJSON (import ./scenarios.nix "deployer.nix");
in
{
  name = "plasmacloud-deployer";

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
    before, after = expect["before"]["state"], expect["after"]["state"]


    def shown(node: str) -> dict:
        return json.loads(deployer.succeed(f"plasmactl node show {node} -o json"))


    def state(node: str) -> str:
        return shown(node)["state"]


    def wait_for(node: str, key: str, wanted: str) -> None:
        deployer.wait_until_succeeds(
            f"plasmactl node show {node} -o json | jq -e '.{key} == \"{wanted}\"'",
            timeout=120,
        )


    with subtest("a node that nobody heard of yet is Pending"):
        deployer.start()
        deployer.wait_for_unit("plasmacloud-deployer.service")
        deployer.wait_for_open_port(8080)
        for node in ["node01", "node02", "node03"]:
            assert state(node) == before, node

    with subtest("a node that phones home becomes Active, with the declared configuration"):
        node01.start()
        node02.start()
        for machine in [node01, node02]:
            machine.wait_for_unit("plasmacloud-phone-home.service")
            for key, wanted in expect["after"].items():
                wait_for(machine.name, key, wanted)
        assert state("node03") == before

    with subtest("a restart of the deployer forgets nothing"):
        deployer.systemctl("restart plasmacloud-deployer.service")
        deployer.wait_for_unit("plasmacloud-deployer.service")
        deployer.wait_for_open_port(8080)
        for node in ["node01", "node02"]:
            assert state(node) == after, node

    site = Site(expect, {"node01": node01, "node02": node02}, router, client, deployer)
    for name, text in json.loads(${builtins.toJSON scenarios}).items():
        with subtest(name):
            site.play(name, text)

    with subtest("a node that is gone is offline, and Active still"):
        node02.crash()
        wait_for("node02", "reachability", "offline")
        assert state("node02") == after
  '';
}
