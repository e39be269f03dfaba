"""Plays the scenarios of vmtests/scenario with the machines of a NixOS VM test.

The commands are those of docs/lab.md, and the Go engine's in vmtests/scenario. What a
machine has to do is run as a command in it, by the test driver's execute; its power is
the driver's crash and start.
"""

import json
import re
import shlex
import time

UNITS = {
    "speaker": "gobgpd.service",
    "announcer": "plasmacloud-announcer.service",
    "phone-home": "plasmacloud-phone-home.service",
    "deployer": "plasmacloud-deployer.service",
    "web": "nginx.service",
}
SIGNALS = {"kill": "KILL", "stop": "TERM", "freeze": "STOP", "thaw": "CONT"}

# What the machines of a NixOS VM test do not have, or what is not told of them.
REFUSED = {
    "cluster start with *": "a machine's configuration is that of its image",
    "cluster evaluate*": "a machine's configuration is that of its image",
    "cluster reload*": "a machine's configuration is that of its image",
    "node reload *": "a machine's configuration is that of its image",
    "link *": "the machines have one network, which is not cut",
    "never *": "nobody looks often enough by the driver's shell",
    "router mark": "the engine in the lab counts what a router hears",
    "router quiet": "the engine in the lab counts what a router hears",
    "router kill *": "there is one router",
    "router start *": "there is one router",
    "router sessions *": "the engine in the lab counts sessions",
    "speaker sessions *": "the engine in the lab counts sessions",
    "announcer asks *": "the machines' web server does not count",
    "announcer logs *": "the log of a machine is the driver's",
    "check fail * *": "the machines' web server fails as a whole",
    "check recover * *": "the machines' web server fails as a whole",
    "client pulls * via *": "there is one router",
    "client pulls * every * via *": "there is one router",
    "router has * via * at *": "there is one router",
    "router has * at *": "there is one router",
    "router lacks * at *": "there is one router",
}

COMMANDS = {}  # by its words, where * is any word


def command(*patterns):
    def keep(function):
        COMMANDS.update(dict.fromkeys(patterns, function))
        return function

    return keep


def fits(pattern: str, words: list) -> bool:
    """Tells whether a command has the words; a * at the end of one of REFUSED is any number of them."""
    wanted = pattern.split()
    if pattern in REFUSED and wanted[-1].endswith("*"):
        stem = wanted.pop().removesuffix("*")
        wanted += [stem] if stem else ["*"]
        words = words[: len(wanted)]
    return len(words) == len(wanted) and all(w in ("*", given) for w, given in zip(wanted, words))


class Refused(Exception):
    """A scenario that cannot be played here."""


class Scenario:
    """A file that was read: its commands, and what it needs."""

    def __init__(self, name: str, text: str):
        self.name, self.steps, self.needs = name, [], {}
        for number, line in enumerate(text.split("\n-- ")[0].splitlines(), 1):
            words = shlex.split(line, comments=line.lstrip().startswith("#"))
            if words and words[0] == "needs":
                self.needs[words[-1]] = int(words[1]) if len(words) == 3 else 1
            elif words:
                self.steps.append((number, words))

    def refuse(self, has: dict) -> None:
        """Looks at all of it before anything is done."""
        for what, count in self.needs.items():
            if has.get(what, 0) < count:
                raise Refused(f"{self.name} needs {count} {what}, has {has.get(what, 0)}")
        for number, words in self.steps:
            find(f"{self.name}, line {number}", words)


def find(where: str, words: list):
    """The function of a command."""
    words = words[1:] if words[0] == "each" else words
    for pattern, why in REFUSED.items():
        if fits(pattern, words):
            raise Refused(f"{where}: `{' '.join(words)}` is not for these machines: {why}")
    for pattern, function in COMMANDS.items():
        if fits(pattern, words):
            return function
    raise Refused(f"{where}: there is no command `{' '.join(words)}`")


def duration(text: str) -> float:
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    if "".join(a + b for a, b in parts) != text:
        raise ValueError(f"{text!r} is no duration")
    return sum(float(a) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[b] for a, b in parts)


def outage(requests: list) -> float:
    """The longest time in which requests were lost, some or all, of (time, answered), until one was answered.

    It goes on until all were answered for two seconds: while it hits a part of them, the others are.
    """
    longest, began, answered, lost = 0.0, None, 0.0, False
    for at, good in requests:
        if good and lost:
            answered = at
            longest = max(longest, at - began)
        elif not good:
            if began is None or not lost and at - answered > 2:
                began = at
            longest = max(longest, at - began + 0.001)
        lost = not good
    return longest


class Site:
    """The machines of a test: nodes by their ids, and the others by what they are.

    expect is vmtests/expect.nix; of its nodes those are here that have a machine.
    """

    def __init__(self, expect: dict, nodes: dict, router, client, deployer, patience: float = 300):
        self.expect, self.nodes, self.patience = expect, nodes, patience
        self.router, self.client, self.deployer = router, client, deployer
        self.has = {"nodes": len(nodes), "routers": 1, "power": 1}
        self.pulls, self.seen = 0, []
        ids = sorted(nodes)
        plain = [v["address"] for v in expect["vips"].values() if not v["checked"]]
        checked = [v["address"] for v in expect["vips"].values() if v["checked"]]
        self.names = {
            "$VIP": plain[0], "$CHECKED": checked[0], "$NODE": ids[0], "$OTHER": ids[1],
            "$NODES": ",".join(ids), "$OTHERS": ",".join(ids[1:]), "$HOLD": f"{expect['hold'] + 10}s",
        }

    def play(self, name: str, text: str) -> None:
        """Plays a scenario, or raises what is not as it says."""
        scenario = Scenario(name, text)
        scenario.refuse(self.has)
        self.seen = []
        for number, words in scenario.steps:
            where = f"{name}, line {number}"
            function, each = find(where, words), words[0] == "each"
            for node in sorted(self.nodes) if each else [""]:
                own = [",".join(self.names.get(part, part).replace("$EACH", node) for part in w.split(",")) for w in (words[1:] if each else words)]
                print(f"{where}: {' '.join(own)}")
                try:
                    function(self, *own)
                except Exception as err:
                    raise AssertionError(f"{where}: {' '.join(own)}: {err}") from err

    def run(self, machine, text: str) -> str:
        status, out = machine.execute(text)
        if status != 0:
            raise AssertionError(f"{text}: status {status}: {out}")
        return out

    def until(self, check) -> None:
        """Waits until check has nothing to say against it."""
        deadline = time.monotonic() + self.patience
        while wrong := check():
            if time.monotonic() > deadline:
                raise AssertionError(wrong)
            time.sleep(0.2)

    def every(self, ids: str) -> list:
        return [(n, self.nodes[n]) for n in (sorted(self.nodes) if ids == "all" else ids.split(","))]

    def hops(self, vip: str) -> set:
        _, out = self.router.execute(f"birdc show route {vip}/{128 if ':' in vip else 32}")
        return set(re.findall(r"via (\S+) on", out))

    def routed(self, vip: str, ids: list) -> str:
        wanted = {self.expect["nextHops"][n]["ipv6" if ":" in vip else "ipv4"] for n in ids}
        got = self.hops(vip)
        return "" if got == wanted else f"the router has {vip} via {sorted(got)}, not {sorted(wanted)}"

    def held(self, machine, vip: str) -> bool:
        family = "-6" if ":" in vip else "-4"
        out = self.run(machine, f"ip {family} route show table local type local")
        return vip in out.split()

    def shown(self, node: str) -> dict:
        status, out = self.deployer.execute(f"plasmactl node show {node} -o json")
        return json.loads(out) if status == 0 else {}


# What a scenario has ended stays down until it starts it: systemd would start it again.
ONCE = "/run/systemd/system/{unit}.d/once.conf"


def signal(site: Site, machine, unit: str, name: str) -> None:
    if name in ("KILL", "TERM"):
        once = ONCE.format(unit=unit)
        site.run(machine, f"mkdir -p {once.rsplit('/', 1)[0]} && printf '[Service]\\nRestart=no\\n' > {once} && systemctl daemon-reload")
    site.run(machine, f"systemctl kill --kill-who=main -s {name} {unit}")


def start(site: Site, machine, unit: str) -> None:
    site.run(machine, f"rm -f {ONCE.format(unit=unit)} && systemctl daemon-reload && systemctl start {unit}")


@command("cluster start")
def cluster_start(site: Site, *_) -> None:
    for machine in [site.router, site.client, site.deployer, *site.nodes.values()]:
        machine.start()


@command("cluster settled")
def cluster_settled(site: Site, *_) -> None:
    def wrong() -> str:
        for vip in [v["address"] for v in site.expect["vips"].values()]:
            if says := site.routed(vip, sorted(site.nodes)):
                return says
            for node, machine in site.nodes.items():
                if not site.held(machine, vip):
                    return f"{node} does not hold {vip}"
        for node in site.nodes:
            shown = site.shown(node)
            for key, value in site.expect["after"].items():
                if shown.get(key) != value:
                    return f"{key} of {node} is {shown.get(key)}, not {value}"
        return ""

    site.until(wrong)


@command("router has * via *")
def router_has_via(site: Site, _, __, vip: str, ___, ids: str) -> None:
    site.until(lambda: site.routed(vip, [n for n, _ in site.every(ids)]))


@command("router has *")
def router_has(site: Site, _, __, vip: str) -> None:
    site.until(lambda: "" if site.hops(vip) else f"the router has no {vip}")


@command("router lacks *")
def router_lacks(site: Site, _, __, vip: str) -> None:
    site.until(lambda: f"the router has {vip}" if site.hops(vip) else "")


@command("host * holds *", "host * lacks *")
def host(site: Site, _, ids: str, verb: str, vip: str) -> None:
    def wrong() -> str:
        return ", ".join(f"{n} {'lacks' if verb == 'holds' else 'holds'} {vip}" for n, m in site.every(ids) if site.held(m, vip) != (verb == "holds"))

    site.until(wrong)


@command("node off *", "node on *")
def node_power(site: Site, _, verb: str, ids: str) -> None:
    for _, machine in site.every(ids):
        machine.crash() if verb == "off" else machine.start()


@command(*(f"{d} {v} *" for d in ["speaker", "announcer", "phone-home"] for v in ["start", "restart", "ended", "reload", *SIGNALS] if v != "reload" or d == "announcer"))
def daemon(site: Site, which: str, verb: str, node: str) -> None:
    machine, unit = site.nodes[node], UNITS[which]

    def runs() -> str:
        state = site.run(machine, f"systemctl show -P ActiveState -P Result {unit}").split()
        if "failed" in state:
            raise AssertionError(f"{unit} ended: {state}")
        return "" if "inactive" in state else f"{unit} still runs"

    if verb == "start":
        start(site, machine, unit)
    elif verb == "ended":
        site.until(runs)
    elif verb in SIGNALS:
        signal(site, machine, unit, SIGNALS[verb])
    else:
        site.run(machine, f"systemctl {verb} {unit}")


@command("check fail *", "check recover *")
def check(site: Site, _, verb: str, ids: str) -> None:
    for _, machine in site.every(ids):
        site.run(machine, f"systemctl {'stop' if verb == 'fail' else 'start'} {UNITS['web']}")


@command("vip drain * at *", "vip undrain * at *")
def vip_order(site: Site, _, verb: str, vip: str, __, node: str) -> None:
    why = " --reason 'the scenario says so'" if verb == "drain" else ""
    site.run(site.nodes[node], f"plasmactl vip {verb} {vip}{why}")


@command("deployer kill", "deployer start")
def deployer_process(site: Site, _, verb: str) -> None:
    if verb == "start":
        start(site, site.deployer, UNITS["deployer"])
    else:
        signal(site, site.deployer, UNITS["deployer"], "KILL")


@command("deployer says * *")
def deployer_says(site: Site, _, __, ids: str, word: str) -> None:
    def wrong() -> str:
        for node, _ in site.every(ids):
            shown = site.shown(node)
            value = shown.get("reachability" if word in ("online", "offline", "unknown") else "state", "nothing")
            if value.lower() != word.lower():
                return f"{node} is {value}, not {word}"
        return ""

    site.until(wrong)


# Asks again and again, once more where a connection was reset, and writes when, and curl's status.
PULL = (
    "echo > /tmp/pull.{n}; ( while [ -e /tmp/pull.{n} ]; do at=$(date +%s.%N); s=0; {curl} || s=$?; [ $s != 56 ] || { s=0; {curl} || s=$?; }; "
    "echo $at $s; sleep {every}; done > /tmp/pulled.{n} 2> /dev/null & ) > /dev/null 2>&1"
)


@command("client pulls *", "client pulls * every *")
def client_pulls(site: Site, _, __, vip: str, ___="", every: str = "10ms") -> None:
    curl = f"curl --silent --fail --output /dev/null --max-time 2 http://{'[' + vip + ']' if ':' in vip else vip}:8080/"
    site.until(lambda: "" if site.client.execute(curl)[0] == 0 else f"a client does not reach {vip}")
    site.pulls += 1
    text = PULL
    for name, value in {"n": str(site.pulls), "curl": curl, "every": str(duration(every))}.items():
        text = text.replace("{" + name + "}", value)
    site.run(site.client, text)
    site.seen.append(site.pulls)
    site.until(lambda: "" if len(pulled(site)[-1]) >= 5 else "no answers yet")


def pulled(site: Site) -> list:
    """What each client of the scenario saw so far: (time, whether it was answered)."""
    if not site.seen:
        raise AssertionError("no client has pulled")
    lines = [site.run(site.client, f"cat /tmp/pulled.{n}").splitlines() for n in site.seen]
    return [[(float(at), status == "0") for at, status in map(str.split, of)] for of in lines]


@command("client stops")
def client_stops(site: Site, *_) -> None:
    site.run(site.client, "rm -f /tmp/pull.*")


@command("client lost none", "client lost at most *")
def client_lost(site: Site, *words) -> None:
    limit = 0 if words[2] == "none" else int(words[-1])
    for requests in pulled(site):
        lost = sum(not answered for _, answered in requests)
        if lost > limit:
            raise AssertionError(f"{lost} of {len(requests)} requests were lost")


@command("client outage at most *")
def client_outage(site: Site, *words) -> None:
    longest = max(map(outage, pulled(site)))
    if longest > duration(words[-1]):
        raise AssertionError(f"requests were lost for {longest:.1f} s")


@command("wait *", "wait * scaled")
def wait(site: Site, _, text: str, *scaled) -> None:
    time.sleep(duration(text) / (20 if scaled else 1))
