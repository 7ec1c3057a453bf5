"""Stamps: what `stat` says of a file, for whoever wants to know later whether it is still the same.

A writer can set a file's size and the time of its last change, so these alone prove nothing. The kernel alone sets the time of the
last change of status (ctime): each write, new mode, hard link and rename of the file moves it. Inode and device say which file it
is, whichever links, mounts and renamed folders led to it. So two equal stamps mean equal bytes and equal mode, but for one gap: the
clock behind those times moves in ticks, and two changes may fall into one. A stamp is `racy` when such a change may come after it.

A stamp is taken before the file is read. One that is taken afterwards would vouch for bytes that nobody has read.

Hard links of the cache are no exception. A link that bk makes moves the ctime of a blob, and then the blob is read once more.
"""

from __future__ import annotations

import os
import time

Stamp = tuple[int, int, int, int, int, int]
"""ctime and mtime in nanoseconds since the epoch, bytes, inode, device, mode: all as `stat` has them, links followed."""

MISSING: Stamp = (-1, -1, -1, -1, -1, -1)
"""Stands for the stamp of a path at which nothing is."""
FIELDS = len(MISSING)
RACY_NS = 2_000_000_000
"""How much older than the look at it a change must be: two seconds are the longest tick of a file system in use, that of FAT."""
MOST = (1 << 63) - 1
"""Inodes and devices are kept as signed numbers of 64 bits."""

BEGAN = time.time_ns()
"""When this process began to look at files."""
_BEGAN = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
_SLEWED_NS = RACY_NS // 4


def of(path: str) -> Stamp | None:
    """Return the stamp of the file or folder at `path` now, or None when nothing can be found there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return of_status(found)


def of_status(found: os.stat_result) -> Stamp:
    """Return the stamp that a status makes."""
    return (
        found.st_ctime_ns,
        found.st_mtime_ns,
        found.st_size,
        found.st_ino & MOST,
        found.st_dev & MOST,
        found.st_mode,
    )


def is_racy(stamp: Stamp | None, moment: int) -> bool:
    """Whether the file may change after the stamp without its stamp changing. `moment` is when the stamp was taken, or before.

    It is in nanoseconds since the epoch. A time in the future is racy: the clock of the file is not ours, or one was set back.
    """
    return stamp is not None and moment - max(stamp[0], stamp[1]) < RACY_NS


def is_young(stamp: Stamp | None) -> bool:
    """Return whether the file may have changed since this process began, or may still change without its stamp changing."""
    return is_racy(stamp, BEGAN)


def clock_was_set() -> bool:
    """Whether the clock was set since this process began: then a file that is older than the process may be new all the same."""
    return abs(time.time_ns() - BEGAN - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _BEGAN)) > _SLEWED_NS
