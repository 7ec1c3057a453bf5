"""Builds with cells whose remote cache dies or hangs in the middle, while tools come from it and while results go to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bazel_remotes import Machine, Server, Start
from relays import relay
from spaces import matrix

TEST = """import pytest

@pytest.mark.parametrize("number", range(4))
def test_one(sandbox, number):
    assert sandbox.worker
"""
SMALL = "//targets:small"
TOOLS = 20 << 20  # bytes of answers, of several tools
Report = Callable[..., dict[str, Any]]


def end(server: Server, way: str) -> None:
    """Kill the server, or let it hang with its connections open."""
    if way == "killed":
        server.kill()
    else:
        server.process.send_signal(signal.SIGSTOP)


def fill(machine: Machine, server: Server, cache: Path) -> None:
    """Send the tools and the images of a warm machine, and no result of a cell."""
    warm = machine("warm")
    matrix(warm, TEST, "oci")
    words = ("cache", "push", SMALL, f"--remote_cache={server.url}", "--disk_cache", str(cache))
    done = warm.bk(*words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("way", ["killed", "hanging"])
@pytest.mark.parametrize("when", [pytest.param("tools", marks=pytest.mark.soak), "cells"])
def test_a_server_that_ends_under_cells_costs_a_warning(
    machine: Machine, start: Start, report: Report, cache_copy: Callable[[str], Path], way: str, when: str
) -> None:
    """Tools that the cache does not have any more are built, each by the cell that needs it, which waits without its job slot."""
    server = start()
    fill(machine, server, cache_copy("warm-cache"))
    one = machine("one")
    matrix(one, TEST, "oci")
    log = ""
    with relay(
        server.ports[server.protocol], lambda _: end(server, way), answers=TOOLS if when == "tools" else 0
    ) as near:
        run = subprocess.Popen(
            [*one.command("build", SMALL, "--jobs=2"), f"--remote_cache={server.protocol}://127.0.0.1:{near.port}"],
            cwd=one.root,
            env={**os.environ, **one.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr is not None
        for line in run.stderr:
            print(line, end="")
            log += line
            if when == "cells" and "test_one" in line and server.process.poll() is None:
                end(server, way)
        assert run.stdout is not None
        out = run.stdout.read()
        assert run.wait() == 0, log + out
        run.stdout.close()
        run.stderr.close()
    print(out)
    assert "4 cells: 4 passed (0 cached, 4 not)" in out
    assert log.count("warning") == 1, log
    assert {cell["status"] for cell in report(one.root, "small")["cells"]} == {"passed"}
