"""Stamps of files: what `stat` reports, and when it proves that a file is unchanged.

A writer can set a file's size and the time of its last modification, so these alone prove nothing. Only the kernel sets
the time of the last status change (ctime): each write, chmod, hard link and rename of the file moves it. Inode and
device identify the file, whichever links, mounts and renamed folders led to it. So two equal stamps mean equal bytes
and equal mode, with one gap: the clock behind these times moves in ticks, and two changes may fall into one tick. A
stamp is `racy` when such a change may follow it.

A stamp is taken before the file is read. A stamp taken afterwards would vouch for bytes that nobody has read.

Hard links of the cache are no exception. A link that bk makes moves the ctime of a blob, and bk then reads the blob
once more.
"""

from __future__ import annotations

import os
import time

Stamp = tuple[int, int, int, int, int, int]
"""ctime and mtime in nanoseconds since the epoch, bytes, inode, device, mode: all as `stat` reports them, with links
followed.
"""

MISSING: Stamp = (-1, -1, -1, -1, -1, -1)
"""The stamp of a path at which nothing exists."""
FIELDS = len(MISSING)
RACY_NS = 2_000_000_000
"""The least age of a change, in nanoseconds, at the time of the look: two seconds, the longest tick of a file system in
use (FAT).
"""
MOST = (1 << 63) - 1
"""Inodes and devices are stored as signed 64-bit numbers."""

BEGAN = time.time_ns()
"""The time at which this process began to look at files."""
_BEGAN = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
_SLEWED_NS = RACY_NS // 4


def of(path: str) -> Stamp | None:
    """Return the current stamp of the file or folder at `path`, or None when nothing exists there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return of_status(found)


def of_status(found: os.stat_result) -> Stamp:
    """Return the stamp of a status."""
    return (
        found.st_ctime_ns,
        found.st_mtime_ns,
        found.st_size,
        found.st_ino & MOST,
        found.st_dev & MOST,
        found.st_mode,
    )


def is_racy(stamp: Stamp | None, moment: int) -> bool:
    """Return whether the file may change after the stamp without a change of its stamp.

    `moment` is a time not after the stamp was taken, in nanoseconds since the epoch. A time in the future is racy: the
    file's clock is not this machine's, or one of them was set back.
    """
    return stamp is not None and moment - max(stamp[0], stamp[1]) < RACY_NS


def is_young(stamp: Stamp | None) -> bool:
    """Return whether the file may have changed since this process began, or may still change without a change of its stamp."""
    return is_racy(stamp, BEGAN)


def clock_was_set() -> bool:
    """Return whether the clock was set since this process began. If so, a file that looks older than the process may be new."""
    return abs(time.time_ns() - BEGAN - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _BEGAN)) > _SLEWED_NS
