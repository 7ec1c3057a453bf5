"""File locks that end with their holder.

The kernel releases an `flock` when the last descriptor of its file is closed, so a killed process leaves no lock
behind. Code that must be able to stop waiting (`execution.executor`) uses `filelock`, which polls.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bkrules.system.files import open_lock


def _nothing() -> None:
    """Wait in silence."""


@contextmanager
def locked(path: str, *, shared: bool = False, waiting: Callable[[], None] = _nothing) -> Iterator[None]:
    """Hold the lock of a file, which is made with its folder when it is missing.

    Args:
        shared: with other shared holders, rather than alone.
        waiting: called once before the wait, when another process holds the lock.

    Raises OSError as `open_regular` does.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = open_lock(path)
    try:
        hold(descriptor, shared=shared, waiting=waiting)
        yield
    finally:
        os.close(descriptor)


def hold(descriptor: int, *, shared: bool = False, waiting: Callable[[], None] = _nothing) -> None:
    """Lock an open file or folder until it is closed."""
    if not tried(descriptor, shared=shared):
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def tried(descriptor: int, *, shared: bool = False) -> bool:
    """Try to lock an open file or folder without waiting. Returns whether it is locked now."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
