"""A spare for the next cell of a worker: the folder of a run, and a zygote that has imported what cells need.

A zygote imports pytest and bk's code around cells, which a command does not need. A spare serves one cell and ends with
it, so no cell finds what another one has left; a spare that serves none ends with the worker, as each zygote does. A zygote
may have imported a file before it was changed, and would run other code than the key of a cell has; so it serves no cell
with such a file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bkrules.build.open_context import Prepared, prepare
from bkrules.incremental import stamps
from bkrules.incremental.stamps import Stamp


@dataclass(frozen=True)
class _Spare:
    """A begun zygote, with the stamps that files had before it began."""

    prepared: Prepared
    stamps: Mapping[str, Stamp]

    def serves(self, files: Collection[str]) -> bool:
        """Return whether the spare is still whole, and none of the files has changed since it began."""
        folder, processes = self.prepared
        return (
            not processes.fate()
            and folder.is_there()
            and all(path in self.stamps and stamps.of(path) == self.stamps[path] for path in files)
        )


class Spares:
    """Keeps a spare for the cells of the disk cache `cache`, from the first `take` until `close`."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._spare: _Spare | None = None
        self._files: set[str] = set()

    def take(self, files: Collection[str]) -> Prepared:
        """Return the spare, or else what another run begins with, and begin the next spare.

        `files` are those of this machine whose bytes are in the key of the cell. Raises OSError.
        """
        with self._lock:
            spare, self._spare = self._spare, None
            self._files.update(files)
        if spare is not None and not spare.serves(files):
            spare.prepared.close()
            spare = None
        taken = spare.prepared if spare else prepare(self._cache)
        self._fill()
        return taken

    def close(self) -> None:
        """End the spare."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.prepared.close()

    def _fill(self) -> None:
        """Begin a spare, unless there is one. When this machine cannot, the next cell ends with the error."""
        with self._lock, suppress(OSError):
            if self._spare is None:
                self._spare = self._begun()

    def _begun(self) -> _Spare:
        moment = time.time_ns()
        seen = {path: stamp for path in self._files if (stamp := stamps.of(path))}
        prepared = prepare(self._cache)
        try:
            prepared.processes.begin()
        except BaseException:
            prepared.close()
            raise
        return _Spare(prepared, {path: stamp for path, stamp in seen.items() if not stamps.is_racy(stamp, moment)})
