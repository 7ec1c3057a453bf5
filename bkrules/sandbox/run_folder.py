"""The folder of one run: its scratch, and the ledger of what its cells own outside of it.

A cell's entry is written before anything of the cell exists, and goes when the cell has ended and been looked after. So what a
killed run left is known exactly, and the next run, or `bk reap`, removes that and nothing else.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from bkrules.cache import atomic
from bkrules.sandbox import cgroups, outputs
from bkrules.system import locks
from bkrules.system.files import read_text


class RunFolder:
    """`<disk cache>/run/<process id>-<random>`, locked while its run lives."""

    def __init__(self, cache: str) -> None:
        with _making(cache):
            self.path = Path(cache, "run", f"{os.getpid()}-{secrets.token_hex(3)}")
            self.path.mkdir(parents=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            locks.hold(self._lock)
        self.root.mkdir()
        self.views.mkdir()
        self._ledger = self.new("ledger")
        self._serial = itertools.count()

    @property
    def root(self) -> Path:
        """An empty folder, on which each cell mounts its root in a mount namespace of its own."""
        return self.path / "root"

    @property
    def views(self) -> Path:
        """An empty folder, on which the zygote mounts in its own mount namespace what cells may see of the machine."""
        return self.path / "views"

    def new(self, name: str) -> Path:
        """Return a new folder of that name."""
        folder = self.path / name
        folder.mkdir()
        return folder

    def new_name(self) -> str:
        """Return a name that no other cell of this machine has."""
        return f"bk-{self.path.name}-{next(self._serial)}"

    @contextmanager
    def owned(self, name: str, folders: Iterable[str]) -> Iterator[None]:
        """Keep an entry of the ledger: a cell owns these cgroup folders, whether they exist yet or not."""
        entry = self._ledger / name
        atomic.write(str(entry), json.dumps({"cgroups": list(folders)}).encode())
        try:
            yield
        finally:
            entry.unlink()

    def close(self) -> None:
        """Remove the folder."""
        outputs.remove_tree(self.path)
        os.close(self._lock)


def _making(cache: str) -> AbstractContextManager[None]:
    """Nobody else makes or sweeps folders meanwhile, so that one which is not locked belongs to a dead run."""
    return locks.locked(f"{cache}/locks/run")


def sweep(cache: str) -> list[str]:
    """Remove what runs that were killed left: their folders, and what their ledgers say. Returns what was removed.

    What cannot be removed now, such as a cgroup that is still busy, stays for the next time.
    """
    removed = []
    if not os.path.isdir(f"{cache}/run"):
        return []
    with _making(cache):
        for folder in sorted(Path(cache, "run").iterdir()):
            if not _is_abandoned(folder):
                continue
            with suppress(OSError):
                for owned in _ledger(folder):
                    if os.path.isdir(owned):
                        cgroups.remove(owned)
                        removed.append(owned)
                outputs.remove_tree(folder)
                removed.append(str(folder))
    return removed


def _ledger(folder: Path) -> Iterator[str]:
    for entry in (folder / "ledger").glob("*"):
        if entry.suffix == ".tmp":
            continue  # not written to its end: its cell never was
        with suppress(ValueError, TypeError, KeyError):  # a crash of the machine can leave it empty, but no cgroup
            yield from json.loads(read_text(entry))["cgroups"]


def _is_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # its run has just ended, or nothing of a run
    try:
        return locks.tried(descriptor)
    finally:
        os.close(descriptor)
