"""Many cells, and many ends: no leak, no flake, memory that does not grow."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from rounds import rounds
from spaces import WORKERS, Space, matrix, wait_for

Report = Callable[[Path, str], dict[str, Any]]

pytestmark = pytest.mark.soak

KILLS = rounds(20)
HELLO = """
import tarfile

def test_hello(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:esgz\\nRUN echo hello > /hello.txt\\n")
    local = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    sandbox.run(["build", "--frontend=dockerfile.v0", *local, "--output", f"type=tar,dest={tmp_path}/out.tar"])
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("hello.txt").read() == b"hello\\n"
"""
GROWTH_KIB = 4096


def resident(pid: int) -> int:
    """The memory of a process in KiB, private and shared; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


@pytest.mark.parametrize(("jobs", "cells"), [(1, 25), (2, 100), (4, 25), (8, 25), (16, 50)])
def test_many_cells(tools: Space, report: Report, leftovers: Leftovers, jobs: int, cells: int) -> None:
    cells = rounds(cells)
    axis = {str(number): number for number in range(cells // len(WORKERS))}
    matrix(tools, HELLO, *WORKERS, more=f"axes = {{'number': {axis!r}}},")
    before = leftovers(tools.cache)
    log = tools.root / "build.log"
    sizes: list[int] = []
    with log.open("w") as output:
        run = subprocess.Popen(
            tools.command("build", "-j", str(jobs), "//targets:small"), cwd=tools.root, stdout=output, stderr=output
        )
        while run.poll() is None:
            sizes.append(resident(run.pid))
            time.sleep(0.1)

    assert run.returncode == 0, log.read_text()
    found = report(tools.root, "small")["cells"]
    assert {(cell["status"], cell["cached"], len(cell["attempts"]), cell["isolation"]) for cell in found} == {
        ("passed", False, 1, "full")
    }
    assert len(found) == cells
    assert leftovers(tools.cache) == before
    early, late = sizes[len(sizes) // 4], sizes[len(sizes) * 9 // 10]  # the last moments go to the reports
    assert late - early < GROWTH_KIB, f"{early} KiB after a quarter of the time, then {late}"


def test_many_kills(tools: Space, leftovers: Leftovers) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    before = leftovers(tools.cache)
    matrix(tools, HELLO, *WORKERS)
    test = tools.root / "t/test_small.py"
    seen: dict[str, int] = {}
    for number in range(KILLS):
        test.write_text(f"{HELLO}\nNUMBER = {number}\n")
        run = subprocess.Popen(
            tools.command("build", "-j", "5", "//targets:small"),
            cwd=tools.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if number % 4:  # of four, one may end a bk that has hardly begun
            wait_for(partial(has_begun, tools, run))
        time.sleep(chance.uniform(0, 2.5))
        run.kill()
        run.wait()
        deadline = time.monotonic() + 60
        while (alive := running(leftovers(tools.cache), before)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert alive == {}, f"kill {number}"
        for kind, names in leftovers(tools.cache).items():
            seen[kind] = seen.get(kind, 0) + (names != before[kind])

        reaped = tools.bk("reap")

        assert reaped.returncode == 0, reaped.stderr
        assert leftovers(tools.cache) == before, f"kill {number}"
    assert seen["run folders"] > KILLS // 4, "hardly a kill met a run that had begun"
    assert tools.bk("build", "//targets:small").returncode == 0


def has_begun(space: Space, run: subprocess.Popen[bytes]) -> bool:
    """Return whether that bk has a run folder, or has ended."""
    return any((space.cache / "run").glob("*")) or run.poll() is not None


def running(found: dict[str, list[str]], before: dict[str, list[str]]) -> dict[str, list[str]]:
    """What a killed run must not leave even before a sweep: all but folders."""
    return {
        kind: names for kind, names in found.items() if kind not in ("run folders", "cgroups") and names != before[kind]
    }
