"""Servers that a test starts: the wait until they are ready, and their end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bkrules.system.waiting import readable

_WAIT = 10.0
_POLL = 0.005
Ready = TypeVar("Ready")


@contextmanager
def running(arguments: Sequence[str], log: Path, ready: Callable[[], Ready | None]) -> Iterator[Ready]:
    """Run a server with its output in `log` for as long as the context lasts. Return the first true value of `ready`.

    Raises RuntimeError when the cell has no such command, and as `wait_until_ready`.
    """
    try:
        with log.open("a") as output:
            process = subprocess.Popen(arguments, stdout=output, stderr=output)
    except FileNotFoundError as error:
        raise RuntimeError(
            f"this cell has no {arguments[0]}: add its go_binary to 'tools' of the test_matrix"
        ) from error
    try:
        yield wait_until_ready(process, ready, log)
    finally:
        process.kill()  # some would wait many seconds for a connection that a client has left open
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], Ready | None], log: Path) -> Ready:
    """Return the first true value of `ready`. It is called repeatedly, for servers that do not notify anyone when they are ready.

    Raises RuntimeError with the server's log when it ends before that, or after 10 seconds.
    """
    ended = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline:
            if found := ready():
                return found
            if readable([ended], _POLL):
                break
    finally:
        os.close(ended)
    raise RuntimeError(f"{log.stem} did not start: {log.read_text()}")
