"""The folder of one run: its temporary files, and the ledger of its cells' cgroups.

bk writes a cell's entry before any part of the cell exists, and removes it after the cell has ended and been cleaned
up. So the leftovers of a killed run are known exactly, and the next run, or `bk reap`, removes just these.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from bkrules.cache import atomic
from bkrules.plugin.host import probe
from bkrules.sandbox import cgroups, outputs
from bkrules.system import locks
from bkrules.system.files import read_text

_NAME = re.compile(r"bk-(\d+)-[0-9a-f]{6}-\d+")
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # the kernel's number of the namespace in which every process of the machine is seen


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
        """An empty folder, on which each cell mounts its root in its own mount namespace."""
        return self.path / "root"

    @property
    def views(self) -> Path:
        """An empty folder, on which the zygote mounts, in its own mount namespace, what cells may see of the machine."""
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
        """Keep an entry of the ledger: these cgroup folders belong to a cell, whether they exist yet or not."""
        entry = self._ledger / name
        atomic.write(str(entry), json.dumps({"cgroups": list(folders)}).encode())
        try:
            yield
        finally:
            entry.unlink()

    def is_there(self) -> bool:
        """Return whether nobody has removed the folder."""
        return self._ledger.is_dir()

    def close(self) -> None:
        """Remove the folder."""
        outputs.remove_tree(self.path)
        os.close(self._lock)


def _making(cache: str) -> AbstractContextManager[None]:
    """Hold the lock for making and sweeping folders, so that a folder without a lock belongs to a dead run."""
    return locks.locked(f"{cache}/locks/run")


def sweep(cache: str) -> list[str]:
    """Remove the leftovers of killed runs: their folders, and the cgroups in their ledgers. Returns what was removed.

    Leftovers that cannot be removed now, such as a busy cgroup, stay for the next time.
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


def sweep_orphans() -> list[str]:
    """Remove the empty cgroups of killed runs whose ledger is gone, as after `rm -r` of their disk cache. Returns their paths.

    The name of a cgroup has the process id of its run. While there is such a process, the cgroup stays; where the processes
    of the whole machine cannot be seen, as in a container, all of them stay.
    """
    if os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE:
        return []
    host = probe()
    removed = []
    for above in dict.fromkeys([host.cgroup, *host.controllers.values()]):
        for path in sorted(Path(above).glob("bk-*")) if above else []:
            name = _NAME.fullmatch(path.name)
            if name is None or os.path.exists(f"/proc/{name[1]}") or cgroups.processes(str(path)):
                continue
            with suppress(OSError):  # a process has come meanwhile, or another bk removes it
                for folder, _, _ in os.walk(path, topdown=False):
                    os.rmdir(folder)
                removed.append(str(path))
    return removed


def _ledger(folder: Path) -> Iterator[str]:
    for entry in (folder / "ledger").glob("*"):
        if entry.suffix == ".tmp":
            continue  # not written completely: its cell never existed
        with suppress(
            ValueError, TypeError, KeyError
        ):  # a crash of the machine can leave an empty entry, but no cgroup
            yield from json.loads(read_text(entry))["cgroups"]


def _is_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # its run has just ended, or the folder does not belong to a run
    try:
        return locks.tried(descriptor)
    finally:
        os.close(descriptor)
