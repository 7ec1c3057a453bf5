"""The folder of one run: scratch for its actions, gone when it ends, swept by the next run when it could not end well."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from bkrules.execution.cell import remove_cgroup

CGROUP_PREFIX = "bk-"


class RunFolder:
    """`<disk cache>/run/<pid>`, locked while its run lives."""

    def __init__(self, cache: str) -> None:
        self.path = Path(cache, "run", str(os.getpid()))
        shutil.rmtree(self.path, ignore_errors=True)  # of an earlier process with this number
        self.path.mkdir(parents=True)
        self.root.mkdir()
        # The name appears with the lock held: a file that is not locked would be taken for one of a dead run.
        unnamed = self.path / "lock.new"
        self._lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / "lock")

    @property
    def root(self) -> Path:
        """An empty folder, on which each cell mounts its root in a mount namespace of its own."""
        return self.path / "root"

    def new(self, name: str) -> Path:
        """A new folder of that name."""
        folder = self.path / name
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep(cache: str, cgroups: str) -> list[str]:
    """Remove what runs that were killed left: their folders and their empty cgroups. Returns what was removed."""
    removed = []
    for folder in Path(cache, "run").glob("*"):
        if _abandoned(folder / "lock"):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(str(folder))
    for folder in Path(cgroups).glob(f"{CGROUP_PREFIX}*") if cgroups else ():
        pid = folder.name.removeprefix(CGROUP_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and _is_empty(folder):
            remove_cgroup(str(folder))
            removed.append(str(folder))
    return removed


def _abandoned(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return False  # not locked yet, or being removed
    except BlockingIOError:
        return False


def _is_empty(cgroup: Path) -> bool:
    with suppress(FileNotFoundError):
        return "populated 0" in (cgroup / "cgroup.events").read_text()
    return False
