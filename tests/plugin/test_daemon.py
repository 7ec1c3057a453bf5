"""Daemons as a cell starts, ends and starts them again, with ordinary programs in their place."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bkrules.cell.hooks import CellHooks
from bkrules.cell.task import Task
from bkrules.plugin import Backend, DaemonError, Daemons, Mirror, RunningCell, Worker

PROGRAM = """
import os, signal, socket, sys
def ended(*_):
    print(sys.argv[1], "was told", flush=True)
    if sys.argv[1] != "deaf":
        sys.exit(0)
signal.signal(signal.SIGTERM, ended)
print(sys.argv[1:], os.environ.get("WORD"), flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
    ready.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
listener = socket.socket(fileno=3) if "LISTEN_FDS" in os.environ else None
while True:
    signal.pause() if listener is None else listener.accept()[0].send(b"hello")
"""


@dataclass(frozen=True)
class Bare(Worker):
    """A worker that starts nothing."""

    name = "bare"

    def tools(self) -> tuple[str, ...]:
        return ()

    def configuration(self, mirror: Mirror) -> dict[str, dict[str, Any]]:
        return {}

    def start(self, daemons: Daemons) -> AbstractContextManager[Backend]:
        raise NotImplementedError


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Starts daemons in a folder of the test's own."""
    made = Daemons(dict(os.environ))
    made.run, made.logs = tmp_path, tmp_path
    cell = RunningCell("t", "bare", "test", {}, 30, made, Task())
    made.hook = partial(CellHooks(Bare()).call, cell=cell)
    yield made
    for daemon in made.running:
        os.kill(daemon.pid, signal.SIGKILL)
        os.waitpid(daemon.pid, 0)
        os.close(daemon.pidfd)
        daemon.ready.close()


def start(daemons: Daemons, name: str, listener: socket.socket | None = None) -> None:
    daemons.start(name, [sys.executable, "-c", PROGRAM, name], listener=listener)


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

    assert daemons.end(timeout=3) == ["deaf"]

    assert [daemon.name for daemon in daemons.dead()] == ["other"]
    assert "deaf it is running 3." in (daemons.logs / "cell.log").read_text()


def test_one_that_has_ended_before_is_no_error(daemons: Daemons) -> None:
    start(daemons, "first")
    daemons.end()

    assert daemons.end() == []


def test_one_starts_again_as_it_was(daemons: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    hooks = daemons.hook

    def change(name: str, **arguments: Any) -> None:
        hooks(name, **arguments)
        if name == "bk_daemon_starting":
            arguments["spec"].arguments += ["flag"]
            arguments["spec"].environment["WORD"] = "spoken"

    daemons.hook = change
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o640)
        listener.listen()
        start(daemons, "one", listener)
    pid = daemons.running[0].pid
    daemons.stop("one")
    assert daemons.running == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(path))

    daemons.restart("one")

    assert [daemon.name for daemon in daemons.running] == ["one"]
    assert daemons.dead() == []
    assert (tmp_path / "one.log").read_text() == "['one', 'flag'] spoken\none was told\n['one', 'flag'] spoken\n"
    assert path.stat().st_mode & 0o777 == 0o640
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.recv(16) == b"hello"


def test_one_that_does_not_stop_is_left_as_it_is(daemons: Daemons) -> None:
    start(daemons, "deaf")
    with pytest.raises(DaemonError, match=r"deaf did not end within 0\.05 s of SIGTERM"):
        daemons.stop("deaf", timeout=0.05)
    assert daemons.dead() == []
    daemons.stop("deaf", signal.SIGKILL)
    assert "deaf killed by SIGKILL 0." in (daemons.logs / "cell.log").read_text()


def test_one_that_does_not_restart_has_died(daemons: Daemons, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(PROGRAM)
    daemons.start("one", [sys.executable, str(script), "one"])
    daemons.stop("one")
    script.write_text("raise SystemExit(3)")
    with pytest.raises(DaemonError, match="one died before it was ready: exit status 3"):
        daemons.restart("one")
    assert [daemon.name for daemon in daemons.dead()] == ["one"]


def test_only_what_was_stopped_starts_again(daemons: Daemons) -> None:
    with pytest.raises(DaemonError, match="'one' is not a daemon of this cell; running are: nothing"):
        daemons.stop("one")
    with pytest.raises(DaemonError, match="'one' was not stopped; stopped are: nothing"):
        daemons.restart("one")
    start(daemons, "one")
    daemons.stop("one")
    with pytest.raises(DaemonError, match="'one' is stopped already; running are: nothing"):
        daemons.stop("one")
