"""What surrounds the code of a plugin when bk imports it and asks it for its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from glob import glob
from types import FrameType

SECONDS = 30.0
"""How long a plugin may take to be imported and to answer a registration hook."""


class Hung(BaseException):
    """A plugin took too long. No `Exception`, so that a plugin that catches those cannot go on."""


@contextlib.contextmanager
def guarded(seconds: float = SECONDS) -> Iterator[None]:
    """Run a plugin's code with a bound in seconds, its output on standard error, and no process left behind.

    Raises Hung when the seconds are over, and RuntimeError for a process that still runs, which is killed.
    Threads other than the main one have no bound, since only that one receives signals.
    """
    before = _children()
    try:
        with _output_on_stderr(), _bounded(seconds):
            yield
    finally:
        left = sorted(_children() - before)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if left:
        raise RuntimeError("it started a process that was still running; a plugin starts nothing outside of a cell")


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise Hung(f"it took longer than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, over)
    # The signal comes again each second, so that code that catches every exception does not go on either.
    rest, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, rest)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def _output_on_stderr() -> Iterator[None]:
    """Send what is printed to standard error, also by `os.write` and by child processes: `--json` stays JSON."""
    sys.stdout.flush()
    output = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(output, 1)
        os.close(output)


def _children() -> set[int]:
    """The child processes of this process, as far as the kernel lists them."""
    found: set[int] = set()
    for path in glob("/proc/self/task/*/children"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            found.update(map(int, file.read().split()))
    return found
