"""Digests of files, remembered by what `stat` says, so that an unchanged file is never read again."""

from __future__ import annotations

import marshal
import os
import time

from bkrules import digest
from bkrules.cache import atomic
from bkrules.digest import Digest
from bkrules.observed import note

# A file as young as this may change again without its mtime showing it, so its digest is not remembered.
RACY_NS = 2_000_000_000


class FileDigests:
    """The digest of a file by path. `store` is where it is kept between builds; `save()` writes it."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._known: dict[str, tuple[int, int, int, int, str]] = {}
        self._fresh: dict[str, Digest] = {}
        self._changed = False
        try:
            with open(store, "rb") as file:
                self._known = marshal.load(file)
        except (OSError, ValueError, EOFError, TypeError):
            self._known = {}
        if not isinstance(self._known, dict):
            self._known = {}

    def of(self, path: str, *, linked: bool = False) -> Digest:
        """The digest of the file at `path`. Raises OSError when it cannot be read.

        Of a file that gets hard links meanwhile, `linked`, the time of its last change of status says nothing.
        """
        note(path)
        if path in self._fresh:
            return self._fresh[path]
        before = os.stat(path)
        changed = 0 if linked else before.st_ctime_ns
        stamp = (before.st_mtime_ns, changed, before.st_size, before.st_ino)
        known = self._known.get(path)
        if known and known[:4] == stamp:
            found = Digest(known[4], before.st_size)
        else:
            found = digest.of_file(path)
            self._changed = True
            if time.time_ns() - max(before.st_mtime_ns, changed) > RACY_NS:
                self._known[path] = (*stamp, found.hash)
            else:
                self._known.pop(path, None)
        self._fresh[path] = found
        return found

    def forget(self, path: str) -> None:
        """Look at the file again when it is next asked for: it was replaced."""
        self._fresh.pop(path, None)
        self._known.pop(path, None)

    def save(self) -> None:
        """Keep what was learned, when something was."""
        if self._changed:
            atomic.write(self._store, marshal.dumps(self._known))
            self._changed = False
