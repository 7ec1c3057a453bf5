"""Cells that share a worker, for who chooses it: put back after each test, and never used again once it is other than before."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from leftovers import Leftovers
from spaces import WORKERS, Space, matrix

from bkrules.report.page_cells import details

Report = Callable[[Path, str], dict[str, Any]]

SHARED = 'isolation = "worker",'
BUILD = """
import os
from pathlib import Path

def build(sandbox, folder):
    (folder / "Dockerfile").write_text("FROM docker.io/library/busybox:esgz\\nRUN echo hello > /hello.txt\\n")
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    return sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *local]).stderr

def check(sandbox, folder):
    assert "CACHED" not in build(sandbox, folder)
    assert sandbox.mirror_requests()[0].path == "/v2/library/busybox/manifests/esgz"
    assert len([line for line in sandbox.logs["buildkitd"].splitlines() if "POST /moby.buildkit.v1.Control/Solve" in line]) <= 1
    return Path("/proc/1/stat").read_text().split()[21]
"""


def test_a_worker_is_shared_and_put_back(tools: Space, report: Report, leftovers: Leftovers) -> None:
    names = ("one", "two", "three")
    tests = "".join(
        f"def test_{name}(sandbox, tmp_path):\n    print('began', check(sandbox, tmp_path))\n" for name in names
    )
    matrix(tools, BUILD + tests, *WORKERS, more=SHARED)
    before = leftovers(tools.cache)

    first = tools.bk("build", "-j", "1", "//targets:small")
    second = tools.bk("build", "//targets:small")

    assert first.returncode == second.returncode == 0, first.stdout + first.stderr
    assert "TAINTED" not in first.stdout
    cells = report(tools.root, "small")["cells"]
    assert {(cell["status"], cell["cached"]) for cell in cells} == {("passed", True)}
    began: dict[str, set[str]] = {}
    for cell in cells:
        log = (tools.root / cell["log"]).read_text()
        began.setdefault(cell["worker"], set()).update(line for line in log.splitlines() if line.startswith("began"))
        assert (tools.root / cell["log"]).with_name("buildkitd.log").read_text()
    assert {len(times) for times in began.values()} == {1}, "a worker was started for each test"
    assert leftovers(tools.cache) == before


def test_no_test_sees_a_build_that_another_has_pinned(tools: Space, report: Report) -> None:
    tests = """
from bkrules.cell import control_api

def histories(sandbox):
    return sandbox.run(["debug", "histories", "--format", "{{.Record.Ref}}"]).stdout.split()

def pin(sandbox, folder):
    assert histories(sandbox) == []
    check(sandbox, folder)
    (build,) = histories(sandbox)
    assert control_api.history(sandbox.backend, 60) == [build.encode()]
    assert len(control_api.usage(sandbox.backend, 60)) == len(sandbox.run("du").stdout.splitlines()[1:-2])
    sandbox.run(["debug", "ctl", "--pin", build])
    sandbox.run("prune-histories")
    assert histories(sandbox) == [build]
    print("began", Path("/proc/1/stat").read_text().split()[21])

def test_one(sandbox, tmp_path): pin(sandbox, tmp_path)
def test_two(sandbox, tmp_path): pin(sandbox, tmp_path)
"""
    matrix(tools, BUILD + tests, "oci", "containerd", "rootless", more=SHARED)

    done = tools.bk("build", "-j", "1", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    assert [cell["tainted"] for cell in cells] == [[]] * 6
    logs = [(tools.root / cell["log"]).read_text().splitlines() for cell in cells]
    began = {line for log in logs for line in log if line.startswith("began")}
    assert len(began) == 3, "a worker was started for each test"


def test_a_cell_has_the_requests_of_its_test_alone(tools: Space, report: Report) -> None:
    tests = """
def seen(sandbox):
    print("seen", [[one.method, one.path, one.status, one.body_bytes] for one in sandbox.mirror_requests()])
def test_one(sandbox, tmp_path):
    build(sandbox, tmp_path)
    seen(sandbox)
def test_quiet(sandbox): seen(sandbox)
def test_two(sandbox, tmp_path):
    build(sandbox, tmp_path)
    seen(sandbox)
"""
    matrix(tools, BUILD + tests, "oci", more=SHARED)

    done = tools.bk("build", "-j", "1", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    counts = {}
    for cell in report(tools.root, "small")["cells"]:
        log = tools.root / cell["log"]
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("seen ")]
        seen = [tuple(request) for request in ast.literal_eval(line.removeprefix("seen "))]
        assert details(cell, log.parent, str).requests == [(ANY, *request) for request in seen]
        pulled = json.loads(log.with_name("result.json").read_text()).get("pulled", {})
        counts[cell["name"].partition("/")[0]] = pulled.get("library/busybox")
        assert sum(size for _, size in pulled.values()) == sum(size for *_, size in seen)
    assert counts["test_quiet"] is None
    assert counts["test_one"] == counts["test_two"] and counts["test_one"][1] > 1 << 20


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("os.fork() == 0 and (__import__('time').sleep(600), os._exit(0))", "processes"),
        ("Path('/root/note').write_text('x')", "names in /root"),
        ("Path('/etc/hosts').write_text('x')", "files in /etc"),
        ("sandbox.stop('buildkitd')", "buildkitd, which the test has stopped"),
        ("sandbox.new_registry()", "listening sockets, names in /tmp, processes"),
        (
            "Path('/tmp/here').mkdir(); __import__('ctypes').CDLL(None).mount(b'x', b'/tmp/here', b'tmpfs', 0, None)",
            "mounts",
        ),
    ],
)
def test_a_tainted_worker_is_not_used_again(tools: Space, report: Report, change: str, what: str) -> None:
    tests = (
        f"def test_change(sandbox):\n    {change}\ndef test_next(sandbox, tmp_path):\n    check(sandbox, tmp_path)\n"
    )
    matrix(tools, BUILD + tests, "oci", more=SHARED)

    for _ in range(2):
        done = tools.bk("build", "-j", "1", "//targets:small")
        cells = {cell["name"].partition("/")[0]: cell for cell in report(tools.root, "small")["cells"]}
        assert cells["test_next"]["status"] == "passed", done.stdout
        assert not cells["test_change"]["cached"]
        assert done.returncode == 0, done.stdout + done.stderr
        assert ", ".join(cells["test_change"]["tainted"]) == what
        assert f"TAINTED: test_change/worker=oci: it changed {what}; not cached" in done.stdout
    assert cells["test_next"]["cached"]


def test_a_worker_that_is_put_back_late_is_not_tainted(tools: Space, report: Report) -> None:
    change = """
def test_change(sandbox):
    call = __import__("ctypes").CDLL(None, use_errno=True)
    Path("/tmp/here").mkdir()
    assert call.mount(b"x", b"/tmp/here", b"tmpfs", 0, None) == 0
    if os.fork() == 0:
        __import__("time").sleep(0.3)
        call.umount(b"/tmp/here")
        os.rmdir("/tmp/here")
        os._exit(0)
"""
    matrix(tools, BUILD + change, "oci", more=SHARED)

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "TAINTED" not in done.stdout
    assert [cell["tainted"] for cell in report(tools.root, "small")["cells"]] == [[]]


def test_a_failure_ends_no_other_test(tools: Space, report: Report) -> None:
    tests = """
import time
def test_bad(sandbox): assert False
def test_late(sandbox): time.sleep(60)
def test_kills(sandbox):
    for folder in Path("/proc").glob("[0-9]*"):
        if (folder / "comm").read_text().strip() == "buildkitd":
            os.kill(int(folder.name), 9)
    time.sleep(0.3)
def test_good(sandbox, tmp_path): check(sandbox, tmp_path)
"""
    matrix(tools, BUILD + tests, "oci", "rootless", more=f"{SHARED} timeout = 2,")

    done = tools.bk("build", "-j", "2", "//targets:small")

    assert done.returncode == 3, done.stdout + done.stderr
    found = {(cell["name"].partition("/")[0], cell["class"]) for cell in report(tools.root, "small")["cells"]}
    assert found == {
        ("test_bad", "test"),
        ("test_late", "timeout"),
        ("test_kills", "infrastructure"),
        ("test_good", None),
    }
