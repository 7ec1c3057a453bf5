"""Maintenance of the disk cache: its size, its integrity, and the removal of unused entries.

A build holds a shared lock on the cache for as long as it relies on entries that it has found. `collect` and `verify`
hold the same lock exclusively, so they wait for running builds and never remove entries that a build uses.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bkrules.cache import links, results
from bkrules.cache.cas import Cas
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.system import locks
from bkrules.system.files import open_lock

LOCK = "cache"
PARTS = ("ac", "cas", links.FOLDER, "go", "toolchains")
_TEMPORARY_SECONDS = 3600
_OLD_LOCK = re.compile("[0-9a-f]{64}").fullmatch
"""The name of a lock of one key, which earlier versions of bk made a file for."""
_DAY_NS = 86_400 * 10**9


@contextmanager
def in_use(cache: str, *, alone: bool = False) -> Iterator[None]:
    """Hold the lock of a cache, shared or `alone`. A read-only cache needs no lock: nothing is removed there."""
    descriptor = -1
    with suppress(OSError):
        os.makedirs(f"{cache}/locks", exist_ok=True)
        descriptor = open_lock(f"{cache}/locks/{LOCK}")
    try:
        if descriptor >= 0:
            locks.hold(descriptor, shared=not alone)
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def touch(path: str) -> None:
    """Record the day on which an entry of the action cache was used."""
    with suppress(OSError):
        if time.time_ns() - os.stat(path).st_mtime_ns > _DAY_NS:
            os.utime(path)


@dataclass(frozen=True)
class Entry:
    """A result of the action cache: its file, the time of its last use (seconds since the epoch), and the blobs it needs."""

    path: str
    used: float
    size: int
    blobs: tuple[Digest, ...]


@dataclass(frozen=True)
class Stats:
    """The contents of a cache; sizes in bytes. `loose` are blobs that no result needs, such as texts that actions read."""

    results: int
    blobs: int
    size: int
    loose: int
    loose_size: int


@dataclass(frozen=True)
class Removed:
    """The removed results and blobs, and their size in bytes."""

    results: int
    blobs: int
    size: int


class Maintenance:
    """Maintenance of the disk cache in the folder `cache`."""

    def __init__(self, cache: str, cas: Cas) -> None:
        self._cache = cache
        self._cas = cas

    def stats(self) -> Stats:
        """Return the current counts and sizes."""
        needed = {blob.hash for entry in self.entries() for blob in entry.blobs}
        blobs = dict(self._blobs())
        loose = [size for path, size in blobs.items() if os.path.basename(path) not in needed]
        entries = list(self.entries())
        total = sum(blobs.values()) + sum(entry.size for entry in entries)
        return Stats(len(entries), len(blobs), total, len(loose), sum(loose))

    def verify(self) -> Removed:
        """Read every blob. Remove damaged blobs, and the results that need a missing blob."""
        with in_use(self._cache, alone=True):
            bad = [(path, size) for path, size in self._blobs() if not _is_whole(path)]
            _remove(path for path, _ in bad)
            broken = [path for path, entry in self._read() if entry is None or not all(map(self._cas.has, entry.blobs))]
            sizes = [os.lstat(path).st_size for path in broken]
            _remove(broken)
        return Removed(len(broken), len(bad), sum(size for _, size in bad) + sum(sizes))

    def collect(self, *, max_size: int | None = None, max_age: float | None = None) -> Removed:
        """Remove results unused for `max_age` seconds, then those unused for longest until `max_size` bytes are left.

        Blobs that no result needs any more are removed too, with the folders that link them, the temporary files of killed
        writers, and locks of earlier versions.
        """
        with in_use(self._cache, alone=True):
            entries = sorted(self.entries(), key=lambda entry: entry.used)
            blobs = {os.path.basename(path): (path, size) for path, size in self._blobs()}
            needs: dict[str, int] = {}
            for entry in entries:
                for name in {blob.hash for blob in entry.blobs}:
                    needs[name] = needs.get(name, 0) + 1
            left = sum(entry.size for entry in entries)
            left += sum(size for name, (_, size) in blobs.items() if name in needs)
            oldest = time.time() - max_age if max_age is not None else 0.0
            gone = []
            for entry in entries:
                if entry.used >= oldest and (max_size is None or left <= max_size):
                    break
                gone.append(entry)
                left -= entry.size
                for name in {blob.hash for blob in entry.blobs}:
                    needs[name] -= 1
                    if not needs[name]:
                        del needs[name]
                        left -= blobs[name][1] if name in blobs else 0
            loose = [pair for name, pair in blobs.items() if name not in needs]
            # Results first, since a result must not outlive its blobs.
            _remove(entry.path for entry in gone)
            _remove(path for path, _ in loose)
            _remove(self._abandoned())
            links.remove_links(self._cache)
        return Removed(len(gone), len(loose), sum(entry.size for entry in gone) + sum(size for _, size in loose))

    def entries(self) -> Iterator[Entry]:
        """Return the readable results."""
        return (entry for _, entry in self._read() if entry is not None)

    def _read(self) -> Iterator[tuple[str, Entry | None]]:
        for path in _files(f"{self._cache}/ac"):
            if path.endswith(".tmp"):
                continue
            try:
                status = os.stat(path)
                yield path, Entry(path, status.st_mtime, status.st_size, self._needed(results.read_entry(path)))
            except (OSError, ValueError):
                yield path, None

    def _needed(self, data: bytes) -> tuple[Digest, ...]:
        """Return the blobs of an entry. Raises ValueError for an entry that a build would reject."""
        entry = results.Entry(data)
        files = entry.result(self._cas.read, self._cas.path).files()
        return (*entry.trees, *(file.digest for file in files))

    def _blobs(self) -> Iterator[tuple[str, int]]:
        for path in _files(f"{self._cache}/cas"):
            if not path.endswith(".tmp"):
                with suppress(FileNotFoundError):
                    yield path, os.stat(path).st_size

    def _abandoned(self) -> Iterator[str]:
        for part in ("ac", "cas"):
            for path in _files(f"{self._cache}/{part}"):
                with suppress(FileNotFoundError):
                    if path.endswith(".tmp") and time.time() - os.stat(path).st_mtime > _TEMPORARY_SECONDS:
                        yield path
        yield from (path for path in _files(f"{self._cache}/locks") if _OLD_LOCK(os.path.basename(path)))


def expunge(cache: str) -> None:
    """Remove all entries of a cache. Foreign files in that folder stay. Waits for builds that use it. Raises OSError."""
    with in_use(cache, alone=True):
        for part in PARTS:
            if os.path.lexists(f"{cache}/{part}"):
                _make_writable(f"{cache}/{part}")
                shutil.rmtree(f"{cache}/{part}")


def _is_whole(path: str) -> bool:
    """Return whether a path is a blob with the bytes of its name."""
    try:
        return digest.of_file(path).hash == os.path.basename(path)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT, errno.ELOOP, errno.EISDIR):
            return False
        raise


def _make_writable(folder: str) -> None:
    """Make a folder and its folders writable: Go's module cache is read-only for its owner too."""
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o755)


def _files(folder: str) -> list[str]:
    return [f"{parent}/{name}" for parent, _, names in os.walk(folder) for name in names]


def _remove(paths: Iterator[str] | list[str]) -> None:
    for path in list(paths):
        with suppress(FileNotFoundError):
            os.unlink(path)


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def size(text: str) -> int:
    """Return bytes from `500M`, `10G`, `1048576`. Raises ValueError."""
    number, unit = text.rstrip("kKmMgGtT"), text[len(text.rstrip("kKmMgGtT")) :].lower()
    if not number.isdigit() or unit not in _UNITS:
        raise ValueError(f"must be a size such as 500M or 10G, but was {text!r}")
    return int(number) * _UNITS[unit]


def span(text: str) -> float:
    """Return seconds from `30d`, `12h`, `2w`. Raises ValueError."""
    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in _SPANS:
        raise ValueError(f"must be a span such as 30d or 12h, but was {text!r}")
    return float(int(number) * _SPANS[unit])


def shown(count: int) -> str:
    """Return a number of bytes in a readable unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
