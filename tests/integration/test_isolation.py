"""What a cell cannot do: leave, take more than its share, leave something behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from spaces import WORKERS, Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

EGRESS = """
import shutil, socket
import pytest
from bkrules.testing.sandbox import CommandFailed

def build(sandbox, folder, dockerfile):
    (folder / "Dockerfile").write_text(dockerfile)
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    with pytest.raises(CommandFailed):
        sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *local])

def test_itself(sandbox):
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with pytest.raises(OSError), socket.socket(family) as out:
            out.connect((address, 443))
    with pytest.raises(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("192.0.2.2", 123))

def test_daemon(sandbox, tmp_path):
    build(sandbox, tmp_path, "FROM registry.example/missing:1\\n")

def test_step(sandbox, tmp_path):
    shutil.copy("/opt/bk/bin/buildctl", tmp_path)
    build(sandbox, tmp_path, "FROM docker.io/library/busybox\\nCOPY buildctl /\\n"
        "RUN /buildctl --timeout 2 --addr tcp://192.0.2.3:1234 debug workers\\n")
"""


def test_who_tries_to_leave_is_named(tools: Space, report: Report) -> None:
    matrix(tools, EGRESS, *WORKERS)

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    found = {cell["name"]: {(one["who"], one["what"]) for one in cell["egress"]} for cell in cells}
    for worker in {cell["worker"] for cell in cells}:
        assert found[f"test_itself/worker={worker}"] == {
            ("test", "tcp 192.0.2.1:443"),
            ("test", "tcp [2001:db8::1]:443"),
            ("test", "udp 192.0.2.2:123"),
        }
        assert found[f"test_daemon/worker={worker}"] == {("buildkitd", "registry.example")}
        ((who, what),) = found[f"test_step/worker={worker}"]
        assert what == "tcp 192.0.2.3:1234"
        assert who in ("a RUN step (buildctl)", "buildctl")
    assert "cells passed although test tried to reach tcp 192.0.2.1:443, and could not" in done.stdout
    assert {cell["isolation"] for cell in cells} == {"full"}


def failing(space: Space, report: Report, test: str, *workers: str, more: str = "") -> list[dict[str, Any]]:
    """The cells of a matrix whose every cell must fail."""
    matrix(space, test, *workers, more=more)
    done = space.bk("build", "//targets:small")
    assert done.returncode == 3, done.stdout + done.stderr
    cells: list[dict[str, Any]] = report(space.root, "small")["cells"]
    assert {cell["status"] for cell in cells} == {"failed"}
    return cells


def test_too_much_memory(tools: Space, report: Report) -> None:
    test = "def test_hungry(sandbox):\n    held = b'x' * (1 << 30)\n"
    for cell in failing(tools, report, test, "oci", "rootless", more="memory = 400, disk = 64,"):
        assert cell["class"] == "resources"
        assert cell["reason"].startswith("out of memory: 1 killed at the cell's limit of 400 MiB; ")
        assert len(cell["attempts"]) == 1


def test_a_build_that_takes_too_much_memory(tools: Space, report: Report) -> None:
    """The disk of a cell is memory: where that is short, something is killed."""
    test = "from pathlib import Path\ndef test_hungry(sandbox):\n    Path('/tmp/big').write_bytes(bytes(500 << 20))\n"
    for cell in failing(tools, report, test, "oci", more="memory = 300, disk = 4000,"):
        assert (cell["class"], cell["reason"][:13]) == ("resources", "out of memory")


def test_too_many_processes(tools: Space, report: Report) -> None:
    test = "import os, time\ndef test_forks(sandbox):\n    while True:\n        os.fork() or time.sleep(60)\n"
    for cell in failing(tools, report, test, "oci", "containerd", more="pids = 200, timeout = 20,"):
        assert cell["class"] == "resources"
        assert cell["reason"].startswith("the cell's limit of 200 processes was met; ")


def test_a_full_disk(tools: Space, report: Report) -> None:
    test = """
def test_writes(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/bulk\\nRUN cp /data/* /tmp/\\nRUN cp /data/* /\\n")
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local])
"""
    for cell in failing(tools, report, test, *WORKERS, more="disk = 24,"):
        assert cell["class"] == "resources"
        assert cell["reason"].startswith(("the cell's disk of 24 MiB is full; ", "no space left on device; "))


def test_files_that_cannot_be_opened(tools: Space, report: Report) -> None:
    test = """
import resource
from pathlib import Path
def test_opens(sandbox):
    for folder in Path("/proc").glob("[0-9]*"):
        if (folder / "comm").read_text().strip() == "buildkitd":
            resource.prlimit(int(folder.name), resource.RLIMIT_NOFILE, (16, 16))
    sandbox.run("build --frontend=dockerfile.v0 --local context=/src --local dockerfile=/src")
"""
    for cell in failing(tools, report, test, "oci", more="timeout = 20,"):
        assert (cell["class"], cell["reason"][:21]) == ("resources", "too many open files; ")


def test_a_leftover_fails_its_cell(tools: Space, report: Report, leftovers: Leftovers) -> None:
    """What a test puts among its results and is no file; a loop device, which would outlive its cell, is refused."""
    test = """
import os, pytest
def test_loop(sandbox):
    os.mknod("/dev/loop-control", 0o20600, os.makedev(10, 237))
    with pytest.raises(PermissionError):
        os.open("/dev/loop-control", os.O_RDWR)
    os.mkfifo("/out/other-pipe")
def test_pipe(sandbox):
    os.mkfifo("/out/pipe")
"""
    before = leftovers(tools.cache)

    cells = {cell["name"]: cell for cell in failing(tools, report, test, "oci")}

    assert {cell["class"] for cell in cells.values()} == {"leak"}
    pipe = tools.root / "bk-out/targets/small/test_pipe/worker=oci/pipe"
    assert cells["test_pipe/worker=oci"]["reason"] == f"the cell leaked: file {pipe}"
    assert "other-pipe" in cells["test_loop/worker=oci"]["reason"]
    assert not pipe.exists()
    assert leftovers(tools.cache) == before


def test_without_limits_nothing_is_kept(tools: Space, report: Report) -> None:
    """A machine that cannot limit memory: here one whose memory hierarchy is hidden from bk."""
    hierarchies = [
        line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup " in line
    ]
    own = [words[4] for words in hierarchies if "memory" in words[-1].split(",")]
    if not own:
        pytest.skip("memory is limited by cgroup2 here, which a cell cannot do without")
    matrix(tools, "def test_it(sandbox): pass\n", "oci")

    for _ in range(2):
        done = tools.bk(
            "build", "//targets:small", prefix=("unshare", "-m", "sh", "-c", f'umount {own[0]} && exec "$@"', "sh")
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 cell passed without a limit of memory, which this machine cannot apply: not cached" in done.stdout
        (cell,) = report(tools.root, "small")["cells"]
        assert (cell["isolation"], cell["cached"]) == ("without a limit of memory", False)


CROWD = """
import resource, socket
from contextlib import ExitStack
import pytest

def test_crowds(sandbox):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, port = sandbox.mirror.split(":")
    with ExitStack() as opened:
        for _ in range(1000):
            opened.enter_context(socket.create_connection((host, int(port)), timeout=20))
        assert sandbox.mirror_requests() == []

@pytest.mark.parametrize("number", range(6))
def test_builds(sandbox, tmp_path, number):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox\\n")
    sandbox.run(["build", "--frontend=dockerfile.v0", f"--local=context={tmp_path}", f"--local=dockerfile={tmp_path}"])
"""


def test_too_many_connections_to_the_mirror(tools: Space, report: Report) -> None:
    """bk has two descriptors for each, and would have none left for anything else."""
    matrix(tools, CROWD, "oci")

    done = tools.bk("build", "//targets:small", prefix=("prlimit", "--nofile=1024:16384"))

    assert done.returncode == 3, done.stdout + done.stderr
    crowds, *builds = sorted(report(tools.root, "small")["cells"], key=lambda cell: cell["name"], reverse=True)
    assert (crowds["status"], crowds["class"]) == ("failed", "resources")
    assert crowds["reason"].startswith("the cell had 256 connections to its mirror open and wanted more; ")
    assert len(crowds["attempts"]) == 1
    assert [cell["status"] for cell in builds] == ["passed"] * 6
