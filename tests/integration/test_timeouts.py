"""A cell whose time is over tells where everything was: the test, each daemon, and what happened when."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

SLOW = """
import os, signal
from pathlib import Path

def build(sandbox, folder):
    (folder / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\\nRUN echo began && sleep 100\\n")
    words = f"build --progress=plain --frontend=dockerfile.v0 --local context={folder} --local dockerfile={folder}"
    print("printed before")
    sandbox.run(words)

def test_slow(sandbox, tmp_path):
    while True:
        try:
            build(sandbox, tmp_path)
        except Exception:
            pass
"""
STOPPED = """
import os, signal
from pathlib import Path

def test_stopped(sandbox):
    for path in Path("/proc").glob("[0-9]*/comm"):
        if path.read_text() == "buildkitd\\n":
            os.kill(int(path.parent.name), signal.SIGSTOP)
    sandbox.run("debug workers")
"""
DEAF = """
import signal
def test_deaf(sandbox):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    signal.pause()
"""
DAEMONS = {
    "oci": ("buildkitd",),
    "rootless": ("buildkitd",),
    "containerd": ("buildkitd", "containerd"),
    "containerd_stargz": ("buildkitd", "containerd", "stargz"),
}


def timed_out(tools: Space, report: Report, test: str, *workers: str, seconds: int) -> list[Path]:
    """Run a test that never ends, and the folders of its cells' logs."""
    matrix(tools, test, *workers, more=f"timeout = {seconds},")
    done = tools.bk("build", "-j1", "//targets:small")
    assert done.returncode == 3, done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    assert {(cell["status"], cell["class"], len(cell["attempts"])) for cell in cells} == {("timed out", "timeout", 1)}
    return [(tools.root / cell["log"]).parent for cell in cells]


@pytest.mark.parametrize("worker", DAEMONS)
def test_the_stacks_of_every_daemon_are_kept(tools: Space, report: Report, worker: str) -> None:
    began = time.monotonic()
    (folder,) = timed_out(tools, report, SLOW, worker, seconds=4)
    assert time.monotonic() - began < 30

    for daemon in DAEMONS[worker]:
        stacks = (folder / f"{daemon}.stacks").read_text()
        assert re.search(r"^goroutine 1 .*\[", stacks, re.MULTILINE), daemon
        assert stacks.count("\ngoroutine ") > 5, daemon
        assert "goroutine " not in (folder / f"{daemon}.log").read_text()
    assert "solver" in (folder / "buildkitd.stacks").read_text(), "the build that hangs is among them"

    said = (folder / "test.log").read_text()
    assert "OutOfTime: the cell's time is over" in said
    assert ">       sandbox.run(words)" in said or "    sandbox.run(words)" in said
    assert "printed before" in said


def test_the_timeline_has_daemons_and_commands_in_their_order(tools: Space, report: Report) -> None:
    (folder,) = timed_out(tools, report, SLOW, "containerd", seconds=3)

    lines = (folder / "timeline.log").read_text().splitlines()
    assert all(re.match(r" *\d+\.\d{3}  \w+ +\S?", line) for line in lines), lines
    texts = ["containerd ready after", "buildkitd started as", "$ buildctl build", "it took more than 3 s"]
    places = [next(number for number, line in enumerate(lines) if text in line) for text in texts]
    assert places == sorted(places)
    assert {line.split()[1] for line in lines} == {"buildkitd", "cell", "containerd", "mirror"}
    seconds = [float(line.split()[0]) for line in lines]
    assert seconds == sorted(seconds)
    assert 3 < seconds[-1] < 12


def test_a_stopped_daemon_has_stacks_too(tools: Space, report: Report) -> None:
    (folder,) = timed_out(tools, report, STOPPED, "oci", seconds=2)
    assert "\ngoroutine " in (folder / "buildkitd.stacks").read_text()


def test_a_test_that_hears_nothing_is_killed(tools: Space, report: Report) -> None:
    began = time.monotonic()
    (folder,) = timed_out(tools, report, DEAF, "oci", seconds=1)
    assert time.monotonic() - began < 20
    assert (folder / "buildkitd.stacks").stat().st_size


def test_a_shared_worker_tells_as_much(tools: Space, report: Report) -> None:
    matrix(tools, SLOW + "def test_ok(sandbox): pass\n", "oci", more="timeout = 3, isolation = 'worker',")
    assert tools.bk("build", "-j1", "//targets:small").returncode == 3

    cells = {cell["name"].partition("/")[0]: cell for cell in report(tools.root, "small")["cells"]}
    assert (cells["test_ok"]["status"], cells["test_slow"]["status"]) == ("passed", "timed out")
    folder = (tools.root / cells["test_slow"]["log"]).parent
    assert "\ngoroutine " in (folder / "buildkitd.stacks").read_text()
    assert "$ buildctl build" in (folder / "timeline.log").read_text()
