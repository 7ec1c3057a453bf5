"""The inside of a cell that several tests share: its first process runs them one after the other.

After each test it resets the worker's state and compares it with the earlier state. If they still differ after
PATIENCE, the worker is tainted: the cell ends, and the answer has the differences.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bkrules.cell import control_api
from bkrules.cell.hooks import CellHooks
from bkrules.cell.protocol import CellResult, StartTest, TestResult, said_by_bk
from bkrules.cell.state import buildctl
from bkrules.cell.task import cell_result, with_test
from bkrules.model.status import Status
from bkrules.plugin.cell import RunningCell
from bkrules.plugin.worker import Backend
from bkrules.sandbox.ipc import receive, send

SOURCES = Path("/src")
PATIENCE = 2.0
"""The seconds in which a worker may end what a test began."""
_INTERVAL = 0.05
_RESET_PATIENCE = 60.0
_RESET = (("prune", "--all"), ("prune-histories",))


def run_tests(backend: Backend, shared: RunningCell, channel: socket.socket, hooks: CellHooks) -> CellResult:
    """Run the tests that arrive on the channel, each with its sources. The supervisor copies the logs of each."""
    # imports requests, which a fresh cell without a test does not need
    from bkrules.testing import mirror
    from bkrules.testing.sandbox import Before

    daemons = shared.daemons
    first = _state(hooks, shared, backend)
    while True:
        document, _ = receive(channel)
        message = None if document is None else said_by_bk(document)
        if not isinstance(message, StartTest):
            return CellResult(Status.PASSED)
        _write_sources(message.sources)
        (daemons.logs / "test.log").unlink(missing_ok=True)
        begins = {path.name: path.stat().st_size for path in daemons.logs.glob("*.log")}
        before = Before(begins, len(mirror.record()[0]))
        began = time.time()
        cell = with_test(shared, message.test, before)
        result = hooks.run_program(cell, backend)
        tainted = [f"{name}, which the test has stopped" for name in daemons.stopped]
        tainted += ["the remains of the test, which was ended"] if result.status == Status.TIMED_OUT else []
        if not tainted and not daemons.dead():
            reset(backend)
            tainted = _differences(first, functools.partial(_state, hooks, cell, backend))
        whole = cell_result(result, TestResult(Status.FAILED, began=began, tainted=tuple(tainted)))
        send(channel, whole)


def _differences(first: Mapping[str, str], read: Callable[[], Mapping[str, str]]) -> list[str]:
    """Return the names whose lines differ, once they are as at first or PATIENCE is over.

    A daemon answers that a build has failed before it has ended the containers of other steps and unmounted their roots.
    """
    end = time.monotonic() + PATIENCE
    while True:
        now = read()
        different = sorted(name for name in {*first, *now} if first.get(name) != now.get(name))
        if not different or time.monotonic() > end:
            return different
        time.sleep(_INTERVAL)


def _write_sources(sources: Mapping[str, tuple[str, bool]]) -> None:
    """Write the sources of a test: by path, the content in base64 and whether it is executable."""
    for path, (text, executable) in sources.items():
        target = SOURCES / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(text))
        target.chmod(0o755 if executable else 0o644)


def reset(backend: Backend) -> None:
    """Reset what every test changes: the build cache, the history, the test's own folders."""
    try:
        control_api.prune(backend, _RESET_PATIENCE)
    except control_api.Unanswered:
        for words in _RESET:
            buildctl(backend, *words)
    shutil.rmtree("/tmp/pytest", ignore_errors=True)
    for path in SOURCES.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _state(hooks: CellHooks, cell: RunningCell, backend: Backend) -> dict[str, str]:
    """Return a digest of the lines of each name of the worker's state."""
    lines = hooks.state(cell, backend)
    return {name: hashlib.sha256("\n".join(lines[name]).encode()).hexdigest() for name in lines}
