"""Digests of files, remembered by their stamps, so that bk reads an unchanged file only once."""

from __future__ import annotations

import marshal
import os
import threading
import time
from typing import Any

from bkrules.cache import atomic
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import current
from bkrules.incremental.stamps import Stamp
from bkrules.model import digest
from bkrules.model.digest import Digest
from bkrules.system.files import read_regular

_AT_ONCE = 16
"""The most files that threads read at once. Two threads never read the same one."""


class FileDigests:
    """The digests of files by path. `store` keeps them between builds; `save()` writes it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._known: dict[str, tuple[Stamp, str]] = {}
        self._fresh: dict[str, tuple[Digest, Stamp, bool]] = {}
        self._changed = False
        self._reading = tuple(threading.Lock() for _ in range(_AT_ONCE))
        try:
            known = marshal.loads(read_regular(store))  # in one piece: `load` reads each part
        except (OSError, ValueError, EOFError, TypeError):
            return
        if isinstance(known, dict):
            self._known = known

    @property
    def count(self) -> int:
        """The number of files whose digests this process has looked at."""
        return len(self._fresh)

    def of(self, path: str) -> Digest:
        """Return the digest of the file at `path`, the same for the whole life of this process. Raises OSError when it
        cannot be read.
        """
        fresh = self._fresh.get(path)
        if fresh is not None:
            current().note(path)
            return fresh[0]
        return self._look(path)[0]

    def now(self, path: str) -> Digest:
        """Return the digest of the file at `path`, read again when its stamp has changed. Raises OSError when it cannot
        be read.
        """
        known = self._unchanged(path)
        if known is None:
            with self._reading[hash(path) % _AT_ONCE]:  # cells that begin together have the same tools
                known = self._unchanged(path) or self._look(path)[0]
        return known

    def _unchanged(self, path: str) -> Digest | None:
        fresh = self._fresh.get(path)
        return fresh[0] if fresh is not None and fresh[1] == current().look(path) else None

    def _look(self, path: str) -> tuple[Digest, Stamp, bool]:
        moment = time.time_ns()
        stamp = current().look(path)
        if stamp is None:
            stamp = stamps.of_status(os.stat(path))  # raises the error that the caller must report
        known = _entry(self._known.get(path))
        if known is not None and known[0] == stamp:
            fresh = Digest(known[1], stamp[2]), stamp, False
        else:
            computed = digest.of_file(path)
            self._changed = True
            is_racy = stamps.is_racy(stamp, moment) or stamps.of(path) != stamp
            if is_racy:
                self._known.pop(path, None)
            else:
                self._known[path] = (stamp, computed.hash)
            fresh = computed, stamp, is_racy
        self._fresh[path] = fresh
        return fresh

    def stamp(self, path: str) -> Stamp | None:
        """Return the file's stamp from before its digest was computed. Return None when it was not, or when the stamp
        proves nothing.
        """
        fresh = self._fresh.get(path)
        return None if fresh is None or fresh[2] else fresh[1]

    def is_still(self, path: str) -> bool:
        """Return whether the file still has the bytes whose digest this process computed."""
        fresh = self._fresh.get(path)
        if fresh is None:
            return False
        if stamps.of(path) != fresh[1]:
            return False
        try:
            return not fresh[2] or digest.of_file(path) == fresh[0]
        except OSError:
            return False

    def forget(self, path: str) -> None:
        """Forget a file, which was replaced, so that the next call reads it again."""
        self._fresh.pop(path, None)
        self._changed = self._known.pop(path, None) is not None or self._changed

    def save(self) -> None:
        """Write the store when there are new digests."""
        if self._changed:
            atomic.write(self._store, marshal.dumps(self._known))
            self._changed = False


def _entry(stored: Any) -> tuple[Stamp, str] | None:
    """Return the entry of a file when it has the right shape. The store may be of another version of bk, or damaged."""
    try:
        stamp, name = stored
        return (stamp, name) if len(name) == len(digest.EMPTY.hash) else None
    except (TypeError, ValueError):
        return None
