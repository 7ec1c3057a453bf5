"""Cells that another machine runs from a digest and a cache: one with neither Go nor a workspace nor any built tool."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bazel_remotes import Server, Start
from leftovers import Leftovers
from spaces import WORKERS, Space, matrix

from bkrules import __version__

TEST = """
def test_one(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\\nRUN echo hello > /hello.txt\\n")
    folders = f"--local context={tmp_path} --local dockerfile={tmp_path}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/hello.txt").read_text() == "hello\\n"
"""
SHORT = """
def test_fails(sandbox):
    print("these are my last words")
    assert 1 == 2

def test_skips(sandbox):
    import pytest
    pytest.skip("not today")
"""
TWO = """
def test_one(sandbox):
    assert sandbox.worker

def test_two(sandbox):
    assert sandbox.worker
"""
OTHER = """
import platform, sys
import bkrules
{change}
from bkrules.__main__ import main
sys.exit(main())
"""
MIB = 1 << 20
SMALL = "//targets:small"
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def worker(tmp_path: Path) -> Space:
    """A machine with bk alone: no workspace, no compiler on its PATH, nothing in its home and its disk cache."""
    for name in ("worker", "home"):
        (tmp_path / name).mkdir()
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return Space(tmp_path / "worker", tmp_path / "worker-cache", environment=environment)


def push(space: Space, server: Server) -> dict[str, str]:
    """Send the cells without a result; their digests by their names."""
    words = ["--json", f"--remote_cache={server.url}", f"--disk_cache={space.cache}"]
    done = space.bk("cache", "push", SMALL, "--actions", *words)
    assert done.returncode == 0, done.stderr
    sent = [action for action in json.loads(done.stdout)["actions"] if action["mnemonic"] == "TestCell"]
    return {action["label"].removeprefix(f"{SMALL}[").removesuffix("]"): action["digest"] for action in sent}


def run(worker: Space, server: Server, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return worker.bk("run-action", name, f"--remote_cache={server.url}", f"--disk_cache={worker.cache}", *words)


def run_all(workers: tuple[str, ...], client: Space, worker: Space, server: Server, report: Report) -> None:
    """Have the other machine run a cell of each worker, and the first one find all results."""
    matrix(client, TEST, *workers)
    sent = push(client, server)
    assert len(sent) == len(workers)
    for name in sent.values():
        done = run(worker, server, name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " ran in " in done.stdout
    done = client.bk("build", SMALL, f"--remote_cache={server.url}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(workers)} passed ({len(workers)} cached, 0 not)" in done.stdout
    assert {cell["status"] for cell in report(client.root, "small")["cells"]} == {"passed"}
    assert push(client, server) == {}


def test_another_machine_runs_a_cell(
    tools: Space, worker: Space, start: Start, report: Report, leftovers: Leftovers
) -> None:
    server = start()
    before = leftovers(worker.cache)
    run_all(("oci",), tools, worker, server, report)
    assert leftovers(worker.cache) == before


@pytest.mark.soak
def test_another_machine_runs_a_cell_of_each_worker(
    tools: Space, worker: Space, start: Start, report: Report, leftovers: Leftovers
) -> None:
    server = start()
    before = leftovers(worker.cache)
    run_all(WORKERS, tools, worker, server, report)
    assert leftovers(worker.cache) == before


def test_failures_and_skips(tools: Space, worker: Space, start: Start) -> None:
    """A failed test tells its log and leaves nothing in a cache; a test that skips itself has a result."""
    server = start()
    matrix(tools, SHORT, "oci")
    sent = push(tools, server)
    failing = sent["test_fails/worker=oci"]
    for _ in range(2):
        done = run(worker, server, failing)
        assert done.returncode == 1, done.stderr
        assert "these are my last words\n" in done.stderr
        assert "error: the cell test_fails/worker=oci: failed: t/test_small.py:4: assert 1 == 2" in done.stderr
        assert done.stdout == ""
    done = run(worker, server, sent["test_skips/worker=oci"])
    assert done.returncode == 0, done.stderr
    assert push(tools, server) == {"test_fails/worker=oci": failing}


def test_inputs_are_fetched_once(tools: Space, worker: Space, start: Start) -> None:
    server = start()
    matrix(tools, TWO, "oci")
    one, two = push(tools, server).values()
    assert run(worker, server, one).returncode == 0
    before = {path for path in (worker.cache / "cas").rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in before) > 100 * MIB, "the tools are among them"
    assert run(worker, server, two).returncode == 0
    more = {path for path in (worker.cache / "cas").rglob("*") if path.is_file()} - before
    assert 0 < sum(path.stat().st_size for path in more) < MIB


def test_another_machine_refuses_a_cell(tools: Space, worker: Space, start: Start) -> None:
    """Its key has facts of the machine that made it. Nothing is fetched for a cell that is refused."""
    server = start()
    matrix(tools, TWO, "oci")
    name = push(tools, server)["test_one/worker=oci"]
    words = ["--nohome_rc", "run-action", name, f"--remote_cache={server.url}", f"--disk_cache={worker.cache}"]

    def refused(prefix: list[str], change: str, reason: str) -> None:
        program = [worker.python, "-I", "-c", OTHER.format(change=change)]
        environment = dict(worker.environment)
        done = subprocess.run(
            [*prefix, *program, *words], cwd=worker.root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 36, done.stderr
        assert reason in done.stderr
        assert "Traceback" not in done.stderr

    refused([], "bkrules.__version__ = '0.0.1'", f"has a key of bk {__version__}, but this machine has bk 0.0.1")
    python = platform.python_version()
    refused(
        [], "platform.python_version = lambda: '3.0.1'", f"a key of Python {python}, but this machine has Python 3.0.1"
    )
    refused(["setarch", "--uname-2.6"], "", "kernel-release (2.6 here, ")
    refused(["prlimit", "--nofile=4096:4096"], "", "kernel-limits (open files 4096 here, none there)")
    refused(["unshare", "--user", "--map-root-user"], "", "this machine cannot run cells: root of a user namespace")
    held = sum(path.stat().st_size for path in (worker.cache / "cas").rglob("*") if path.is_file())
    assert held < MIB
