# Two nodes phone home and become Active; the deployer remembers them.
{ nixosModule, cluster, ... }:
let
  machines = import ./machines.nix { inherit nixosModule cluster; };
in
{
  name = "plasmacloud-deployer";

  nodes = {
    inherit (machines) deployer;
    node01 = machines.node "node01";
    node02 = machines.node "node02";
  };

  testScript = ''
    import json


    def state(node: str) -> str:
        shown = deployer.succeed(f"plasmactl node show {node} -o json")
        return json.loads(shown)["state"]


    def wait_for_state(node: str, wanted: str) -> None:
        deployer.wait_until_succeeds(
            f"plasmactl node show {node} -o json | jq -e '.state == \"{wanted}\"'",
            timeout=120,
        )


    with subtest("a node that nobody heard of yet is Pending"):
        deployer.start()
        deployer.wait_for_unit("plasmacloud-deployer.service")
        deployer.wait_for_open_port(8080)
        for node in ["node01", "node02", "node03"]:
            assert state(node) == "Pending", node

    with subtest("a node that phones home becomes Active, with the declared configuration"):
        node01.start()
        node02.start()
        for machine in [node01, node02]:
            machine.wait_for_unit("plasmacloud-phone-home.service")
            wait_for_state(machine.name, "Active")
            shown = json.loads(deployer.succeed(f"plasmactl node show {machine.name} -o json"))
            assert shown["config"] == "in_sync", shown
            assert shown["reachability"] == "online", shown
        assert state("node03") == "Pending"

    with subtest("a restart of the deployer forgets nothing"):
        deployer.systemctl("restart plasmacloud-deployer.service")
        deployer.wait_for_unit("plasmacloud-deployer.service")
        deployer.wait_for_open_port(8080)
        for node in ["node01", "node02"]:
            assert state(node) == "Active", node

    with subtest("a node that is gone is offline, and Active still"):
        node02.crash()
        deployer.wait_until_succeeds(
            "plasmactl node show node02 -o json | jq -e '.reachability == \"offline\"'",
            timeout=120,
        )
        assert state("node02") == "Active"
  '';
}
