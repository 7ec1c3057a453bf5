"""Daemons as a cell starts and ends them, with ordinary programs in their place."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bkrules.plugin import Daemons

PROGRAM = """
import os, signal, socket, sys
def ended(*_):
    print(sys.argv[1], "was told", flush=True)
    if sys.argv[1] != "deaf":
        sys.exit(0)
signal.signal(signal.SIGTERM, ended)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
    ready.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Starts daemons in a folder of the test's own."""
    made = Daemons(dict(os.environ))
    made.run, made.logs = tmp_path, tmp_path
    yield made
    for daemon in made.running:
        os.kill(daemon.pid, signal.SIGKILL)
        os.waitpid(daemon.pid, 0)
        os.close(daemon.pidfd)
        daemon.ready.close()


def start(daemons: Daemons, name: str) -> None:
    daemons.start(name, [sys.executable, "-c", PROGRAM, name])


def test_daemons_end_in_the_reverse_order(daemons: Daemons) -> None:
    start(daemons, "first")
    start(daemons, "second")

    assert daemons.end() == []

    assert daemons.dead() == daemons.running
    said = (daemons.logs / "cell.log").read_text()
    assert 0 < said.index("second exit status 0") < said.index("first exit status 0")


def test_one_that_does_not_end_is_named(daemons: Daemons) -> None:
    start(daemons, "deaf")
    start(daemons, "other")

    assert daemons.end(timeout=0.5) == ["deaf"]

    assert [daemon.name for daemon in daemons.dead()] == ["other"]
    assert "deaf it is running 0.5" in (daemons.logs / "cell.log").read_text()


def test_one_that_has_ended_before_is_no_error(daemons: Daemons) -> None:
    start(daemons, "first")
    daemons.end()

    assert daemons.end() == []
