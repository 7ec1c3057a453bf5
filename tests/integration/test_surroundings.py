"""What a cell inherits from who starts bk: nothing that can change what happens in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

TEST = """
import ctypes, json, os, resource, socket, sys
from pathlib import Path

def read(path):
    return Path(path).read_text().strip() if Path(path).exists() else None

def test_it(sandbox):
    umask = os.umask(0)
    os.umask(umask)
    status = [line for line in read("/proc/self/status").splitlines() if line.startswith(("Sig", "Shd", "Groups", "Umask"))]
    limits = [line for line in read("/proc/self/limits").splitlines()]
    found = {
        "umask": umask,
        "status": [line for line in status if not line.startswith("SigQ")],
        "limits": [line for line in limits if "processes" not in line and "pending" not in line],
        "soft limit of files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "personality": read("/proc/self/personality"),
        "groups": os.getgroups(),
        "domain": read("/proc/sys/kernel/domainname"),
        "host": socket.gethostname(),
        "forward": read("/proc/sys/net/ipv4/ip_forward"),
        "filter": read("/proc/sys/net/ipv4/conf/default/rp_filter"),
        "modes": {path: oct(os.stat(path).st_mode) for path in ("/", "/home", "/opt/bk/bin", "/etc", "/var/lib/bk", "/tmp")},
        "environment": sorted(name for name in os.environ if name not in ("PYTEST_CURRENT_TEST",)),
        "arguments": sys.flags.isolated,
    }
    print("FOUND", json.dumps(found, sort_keys=True))
    raise AssertionError("shown")
"""


def seen(tools: Space, *prefix: str) -> dict[str, Any]:
    """What a cell's test found, when bk was started like this."""
    done = tools.bk("build", "//targets:small", prefix=prefix)
    assert "AssertionError: shown" in done.stdout, done.stdout + done.stderr
    (log,) = (tools.root / "bk-out/targets/small").rglob("test.log")
    line = next(line for line in log.read_text().splitlines() if line.startswith("FOUND {"))
    found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return found


STRANGE = """
umask 077
ulimit -c unlimited
ulimit -S -n 256
ulimit -S -s 4096
ulimit -S -f 1000000
trap "" HUP USR1 QUIT TERM
echo other.domain > /proc/sys/kernel/domainname
echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter
echo 1 > /proc/sys/net/ipv4/ip_forward
exec setarch -R "$@"
"""


def test_a_cell_is_the_same_however_bk_was_started(tools: Space) -> None:
    """The network is a new one, so that this machine's stays unchanged."""
    matrix(tools, TEST, "oci")
    before = seen(tools)

    after = seen(tools, "unshare", "-u", "-n", "sh", "-c", STRANGE, "sh")

    assert after == before
    assert before["umask"] == 0o022
    assert before["domain"] == "(none)"


@pytest.mark.parametrize("worker", ["oci", "rootless"])
def test_a_private_umask_harms_no_worker(tools: Space, worker: str, report: Any, tmp_path: Path) -> None:
    """A daemon without privileges must see the tools and its own folders."""
    test = "def test_it(sandbox):\n    sandbox.run('debug workers')\n"
    matrix(tools, test, worker)

    done = tools.bk("build", "//targets:small", prefix=("sh", "-c", 'umask 077; exec "$@"', "sh"))

    assert done.returncode == 0, done.stdout + done.stderr
    (cell,) = report(tools.root, "small")["cells"]
    assert (cell["status"], cell["cached"]) == ("passed", False)
