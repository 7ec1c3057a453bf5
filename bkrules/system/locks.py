"""File locks that end with their holder.

The kernel releases a lock when the last descriptor of its file is closed, so a killed process leaves no lock behind.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bkrules.system.files import open_lock

_POSITION_BITS = 60
"""The bits of a name that are its position in the file. A position is a positive `off_t`, so 62 are possible."""


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


def tried_name(path: str, name: str) -> int | None:
    """Try to lock a hexadecimal name, such as a digest, without waiting.

    Return a descriptor that holds the lock until it is closed, or None when another descriptor holds it, of this process
    or of another one. A name is one byte of the file `path`, which stays empty and is made with its folder when it is
    missing: to make a file for each name costs more than a trivial action. Names that begin with the same 60 bits share
    a lock, so a thread that holds one must not wait for another.

    Raises OSError as `open_regular` does.
    """
    position = int(name[: _POSITION_BITS // 4], 16)
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = open_lock(path)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
