"""Checks the Python of a NixOS VM test without running it.

    check-test-script.py MACHINE... < testScript

Every name has to be the script's own, Python's, the test driver's or a machine's,
and what is called of a machine has to be a method of the driver's machines.
"""

import ast
import builtins
import sys

DRIVER = {"create_machine", "driver", "join_all", "machines", "start_all", "subtest", "t", "vlans"}
METHODS = {
    "block", "copy_from_host", "crash", "execute", "fail", "get_console_log", "name", "reboot", "require_unit_state",
    "shutdown", "sleep", "start", "start_job", "stop_job", "succeed", "systemctl", "unblock", "wait_for_closed_port",
    "wait_for_console_text", "wait_for_file", "wait_for_open_port", "wait_for_shutdown", "wait_for_unit",
    "wait_until_fails", "wait_until_succeeds",
}


def problems(source: str, machines: set[str]) -> list[str]:
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    known = set(dir(builtins)) | DRIVER | machines
    known |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    known |= {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler))}
    known |= {(a.asname or a.name).split(".")[0] for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
    found = []
    for n in nodes:
        if isinstance(n, ast.Name) and n.id not in known:
            found.append(f"line {n.lineno}: {n.id} is not defined")
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in machines | {"machine"} and n.attr not in METHODS:
            found.append(f"line {n.lineno}: a machine has no {n.attr}")
    return found


if __name__ == "__main__":
    found = problems(sys.stdin.read(), set(sys.argv[1:]))
    for problem in found:
        print(problem)
    sys.exit(bool(found))
