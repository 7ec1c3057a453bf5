"""Servers that a test starts: until they are ready, and until they end."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_WAIT = 10.0
_POLL = 0.005
Ready = TypeVar("Ready")


@contextmanager
def running(arguments: Sequence[str], log: Path, ready: Callable[[], Ready | None]) -> Iterator[Ready]:
    """A server with its output in `log`, for as long as the context lasts; what `ready` says first that is true.

    Raises RuntimeError when the cell has no such command, and as `wait_until_ready`.
    """
    try:
        with log.open("a") as output:
            process = subprocess.Popen(arguments, stdout=output, stderr=output)
    except FileNotFoundError as error:
        raise RuntimeError(
            f"this cell has no {arguments[0]}: the test_matrix needs a go_binary of it in 'tools'"
        ) from error
    try:
        yield wait_until_ready(process, ready, log)
    finally:
        process.kill()  # asked to end, some would wait many seconds for a connection that a client has left open
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], Ready | None], log: Path) -> Ready:
    """What `ready` says first that is true. It is asked again and again, for servers that tell nobody when they are ready.

    Raises RuntimeError with the server's log when it ends before that, or after 10 seconds.
    """
    ended = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline:
            if found := ready():
                return found
            if select.select([ended], [], [], _POLL)[0]:
                break
    finally:
        os.close(ended)
    raise RuntimeError(f"{log.stem} did not start: {log.read_text()}")
