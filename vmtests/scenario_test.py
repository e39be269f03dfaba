"""Plays every scenario that sites.json has for the NixOS test driver on a model of its
machines, which answers what scenario.py runs there.

    scenario_test.py EXPECT.json < what the Go engine has

It fails where a scenario does not come to its end, where a command that changes
something had no effect that the model knows, and where a word of the Go engine is
neither a command of scenario.py nor refused by name.
"""

import json
import pathlib
import re
import sys
import time
import unittest
import unittest.mock

import scenario

EXPECT = json.loads(pathlib.Path(sys.argv.pop(1)).read_text())
GO = json.load(sys.stdin)
HERE = pathlib.Path(__file__).parent / "scenario"
ANNOUNCER, SPEAKER, DEPLOYER = (scenario.UNITS[u] for u in ["announcer", "speaker", "deployer"])


class Machine:
    """A machine of the driver: execute, start, crash."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.boot()

    def boot(self):
        self.on, self.down, self.once, self.drained = True, set(), set(), getattr(self, "drained", set())

    def start(self):
        if not self.on:
            self.boot()

    def crash(self):
        self.on = False

    def execute(self, text):
        assert self.on, f"{self.name} is off: {text}"
        self.world.ran.append(f"{self.name}: {text}")
        for pattern, answer in ANSWERS.items():
            if found := re.fullmatch(pattern, text, re.DOTALL):
                return answer(self, *found.groups())
        raise AssertionError(f"the model of {self.name} does not know: {text}")

    def held(self):
        vips = {v["address"] for v in EXPECT["vips"].values()}
        failing = {v["address"] for v in EXPECT["vips"].values() if v["checked"] and scenario.UNITS["web"] in self.down}
        return set() if ANNOUNCER in self.down else vips - failing - self.drained

    def unit(self, verb, unit):
        self.down = self.down - {unit} if verb in ("start", "restart") else self.down | {unit}
        return 0, ""

    def killed(self, unit, name):
        if name in ("KILL", "TERM"):
            assert unit in self.once, f"systemd starts {unit} again"
            self.down.add(unit)
        return 0, ""

    def once_for(self, unit):
        self.once.add(unit)
        return 0, ""

    def started(self, unit):
        self.once.discard(unit)
        return self.unit("start", unit)

    def drain(self, verb, vip):
        self.drained = self.drained | {vip} if verb == "drain" else self.drained - {vip}
        return 0, ""

    def routes(self, vip):
        """As BIRD 2 writes them."""
        lines = [
            f"{vip}/{length} unicast [node1 10:00:00.000] * (100) [AS65001i]\n\tvia {EXPECT['nextHops'][n.name][family]} on eth1"
            for n in self.world.nodes.values()
            for family, length in [("ipv6", 128) if ":" in vip else ("ipv4", 32)]
            if n.on and SPEAKER not in n.down and vip in n.held()
        ]
        return (0, "BIRD 2.17.1 ready.\nTable master4:\n" + "\n".join(lines)) if lines else (8, "Network not found\n")

    def local(self, family):
        return 0, "".join(f"local {v} dev lo proto kernel scope host src {v} \n" for v in self.held() if (":" in v) == (family == "-6"))

    def shown(self, node):
        if DEPLOYER in self.down:
            return 69, "it does not answer\n"
        online = {**EXPECT["after"], "reachability": "online" if self.world.nodes[node].on else "offline"}
        return 0, json.dumps(online)

    def pull(self, n):
        self.world.pulled[n] = time.time()
        return 0, ""

    def pulled(self, n):
        return 0, "".join(f"{self.world.pulled[n] + i / 100:.9f} 0\n" for i in range(20))


ANSWERS = {
    r"birdc show route (\S+)/\d+": Machine.routes,
    r"ip (-[46]) route show table local type local": Machine.local,
    r"plasmactl node show (\S+) -o json": Machine.shown,
    r"systemctl (start|stop|restart) (\S+)": Machine.unit,
    r"mkdir -p /run/systemd/system/(\S+)\.d && printf '\[Service\]\\nRestart=no\\n' > \S+/once.conf && systemctl daemon-reload": Machine.once_for,
    r"rm -f \S+/once.conf && systemctl daemon-reload && systemctl start (\S+)": Machine.started,
    r"systemctl kill --kill-who=main -s (\w+) (\S+)": lambda m, name, unit: m.killed(unit, name),
    r"plasmactl vip (drain) (\S+) --reason 'the scenario says so'": Machine.drain,
    r"plasmactl vip (undrain) (\S+)": Machine.drain,
    r"curl .* http://\S+:8080/": lambda m: (0, ""),
    r"echo > /tmp/pull\.(\d+); .*curl.*": Machine.pull,
    r"cat /tmp/pulled\.(\d+)": Machine.pulled,
    r"rm -f /tmp/pull\.\*": lambda m: (0, ""),
}


class World:
    def __init__(self):
        self.ran, self.pulled = [], {}
        self.nodes = {n: Machine(self, n) for n in ["node01", "node02"]}
        self.router, self.client, self.deployer = (Machine(self, n) for n in ["router", "client", "deployer"])
        self.site = scenario.Site(EXPECT, self.nodes, self.router, self.client, self.deployer, patience=1)


def text_of(name):
    return (HERE / "catalogue" / f"{name}.txtar").read_text()


def expand(form):
    """A form with and without what is in brackets, and with each verb."""
    if found := re.search(r" ?\[([^]]*)\]", form):
        before, after = form[: found.start()], form[found.end() :]
        return expand(before + after) + expand(f"{before} {found[1]}{after}")
    verbs = ["start", "restart", "ended", *scenario.SIGNALS]
    return [form.replace("VERB", v) for v in verbs] if "VERB" in form else [form]


class Test(unittest.TestCase):
    def setUp(self):
        self.enterContext(unittest.mock.patch("time.sleep"))

    def test_scenarios(self):
        """Each that is listed comes to its end; each other one says what is missing."""
        for name, sites in json.loads((HERE / "sites.json").read_text()).items():
            with self.subTest(name):
                world = World()
                if {"vip.nix", "deployer.nix"} & set(sites):
                    world.site.play(name, text_of(name))
                    self.assertTrue(world.ran)
                    for node in world.nodes.values():
                        self.assertEqual((node.on, node.down, node.once, node.drained), (True, set(), set(), set()))
                else:
                    with self.assertRaisesRegex(scenario.Refused, "needs|is not for these machines"):
                        world.site.play(name, text_of(name))
                    self.assertEqual(world.ran, [])

    def test_what_is_not_so(self):
        """What a scenario says and is not so is told."""
        for steps, says in {
            "vip drain $VIP at $NODE\nrouter has $VIP via $NODES": "line 3: router has 203.0.113.20 via node01,node02: the router has .*10.0.0.12",
            "vip drain $VIP at $NODE\nhost $NODE holds $VIP": "node01 lacks",
            "check fail $NODE\ncluster settled": "the router has 203.0.113.10",
            "deployer kill\ncluster settled": "of node01 is None, not",
            "node off node02\ndeployer says node02 online": "node02 is offline, not online",
            "speaker kill node01\nrouter has $VIP via $NODES": "the router has",
            "router lacks $VIP": "the router has 203.0.113.20",
            "node off $NODE,$OTHER\nhost $OTHER,$NODE holds $VIP": "node02 is off",
        }.items():
            with self.subTest(steps), self.assertRaisesRegex(AssertionError, says):
                world = World()
                world.site.patience = 0
                world.site.play("it", "cluster start\n" + steps)

    def test_refusals(self):
        for text, says in {
            "needs 3 nodes\ncluster start": "it needs 3 nodes, has 2",
            "needs links\ncluster start": "it needs 1 links, has 0",
            "cluster start\nlink down node01": "line 2: `link down node01` is not for these machines: ",
            "cluster start\nrooter has x": "line 2: there is no command `rooter has x`",
            "cluster start\neach node reload $EACH": "line 2: `node reload \\$EACH` is not",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(scenario.Refused, says):
                World().site.play("it", text)

    def test_words_of_the_engine(self):
        """Every first word of the Go engine, and every command that some scenario has, is known here."""
        own = {p.split()[0] for p in [*scenario.COMMANDS, *scenario.REFUSED]} | {"each", "needs"}
        self.assertEqual(own, set(GO["commands"]))
        for name, text in GO["scenarios"].items():
            for number, words in scenario.Scenario(name, text).steps:
                try:
                    scenario.find(name, words)
                except scenario.Refused as err:
                    self.assertIn("is not for these machines", str(err), f"{name}, line {number}")

    def test_forms_of_the_document(self):
        """Every form of a command that docs/lab.md has is known here."""
        self.assertGreater(len(GO["forms"]), 25)
        for form in [f for written in GO["forms"] for f in expand(written)]:
            with self.subTest(form):
                try:
                    scenario.find("docs/lab.md", form.split())
                except scenario.Refused as err:
                    self.assertIn("is not for these machines", str(err))

    def test_outage(self):
        lost = [(0, True), (0.01, False), (0.5, True), (0.9, False), (1.0, True), (3.1, False), (3.15, False), (3.2, True)]
        self.assertAlmostEqual(scenario.outage(lost), 0.99)
        slow = [(i * 2.01, False) for i in range(100)]
        self.assertAlmostEqual(scenario.outage(slow), 99 * 2.01 + 0.001)
        self.assertAlmostEqual(scenario.outage([*slow, (201, True)]), 201)
        self.assertEqual(scenario.outage([(0, True)]), 0)
        self.assertEqual(scenario.duration("1m30s"), 90)
        self.assertEqual(scenario.duration("500ms"), 0.5)
        with self.assertRaises(ValueError):
            scenario.duration("5 parsecs")


if __name__ == "__main__":
    unittest.main()
