"""Whether a server that a test has started is ready."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_WAIT = 10.0
_POLL = 0.005
Ready = TypeVar("Ready")


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
