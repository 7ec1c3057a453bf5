"""A cell's cgroups: one that holds all of its processes, and the limits of its memory and of their number.

The first is always a cgroup2 folder. A limit is set in it too, or, on a machine with a separate hierarchy for a
controller, in a second group of the same name there. Only file names depend on this below.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_REMOVE_SECONDS = 5
# Controller: the files of its limit and its count, and the word before the count; in cgroup2 and in a separate hierarchy.
_UNIFIED = {
    "memory": ("memory.max", "memory.events", "oom_kill"),
    "pids": ("pids.max", "pids.events", "max"),
}
_OWN = {
    "memory": ("memory.limit_in_bytes", "memory.oom_control", "oom_kill"),
    "pids": ("pids.max", "pids.events", "max"),
}
_NO_SWAP = {"memory.max": ("memory.swap.max", "0"), "memory.limit_in_bytes": ("memory.memsw.limit_in_bytes", None)}


class Cgroups:
    """The groups of one cell. `path` is the cgroup2 folder; `limited` the folder by controller, possibly the same one."""

    def __init__(self, path: str, limited: Mapping[str, str]) -> None:
        self.path = path
        self.limited = dict(limited)

    @property
    def folders(self) -> list[str]:
        """Every folder, each once."""
        return list(dict.fromkeys([self.path, *self.limited.values()]))

    def create(self, limits: Mapping[str, int]) -> None:
        """Make the groups: memory in bytes, pids as a number. Raises OSError."""
        os.makedirs(f"{self.path}/init")
        for controller, folder in self.limited.items():
            if folder == self.path:
                self._hand_down(controller)
            else:
                os.mkdir(folder)
            name, _, _ = self._files(controller)
            Path(folder, name).write_text(str(limits[controller]))
            swap, value = _NO_SWAP.get(name, ("", None))
            if swap and os.path.exists(f"{folder}/{swap}"):
                Path(folder, swap).write_text(value or str(limits[controller]))

    def join(self, pid: int) -> None:
        """Put a process under the limits outside of cgroup2; it is in the cgroup2 folder from its first moment."""
        for folder in self.folders:
            if folder != self.path:
                Path(folder, "cgroup.procs").write_text(str(pid))

    def hits(self) -> dict[str, int]:
        """Return how often each limit was met: processes killed for memory, forks refused."""
        found = {}
        for controller, folder in self.limited.items():
            _, name, word = self._files(controller)
            with suppress(FileNotFoundError):
                lines = Path(folder, name).read_text().splitlines()
                found[controller] = sum(int(line.split()[1]) for line in lines if line.split()[0] == word)
        return found

    def processes(self) -> list[int]:
        """Return the processes in the cgroup2 folder and below."""
        return processes(self.path)

    def remove(self) -> None:
        """Kill all processes in the groups, and remove the groups. Raises OSError when one stays busy for 5 s."""
        for folder in self.folders:
            remove(folder)

    def _files(self, controller: str) -> tuple[str, str, str]:
        return (_UNIFIED if self.limited[controller] == self.path else _OWN)[controller]

    def _hand_down(self, controller: str) -> None:
        control = Path(os.path.dirname(self.path), "cgroup.subtree_control")
        if controller not in control.read_text().split():
            control.write_text(f"+{controller}")


def processes(path: str) -> list[int]:
    """Return the processes in a cgroup and in those below it."""
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        with suppress(OSError):  # gone meanwhile, or a group of threads
            found += [int(word) for word in Path(folder, "cgroup.procs").read_text().split()]
    return found


def threads(path: str) -> list[int]:
    """Return the threads in a cgroup and in those below it; a process that is about to end may have nothing else."""
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        with suppress(OSError):  # gone meanwhile
            found += [int(word) for word in Path(folder, "cgroup.threads").read_text().split()]
    return found


def remove(path: str) -> None:
    """Kill all processes in a cgroup, and remove it with those below. Raises OSError when it stays busy for 5 s."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    if os.path.exists(f"{path}/cgroup.kill"):  # cgroup2 has it
        Path(path, "cgroup.kill").write_text("1")
    while os.path.isdir(path):
        try:
            for folder, _, _ in os.walk(path, topdown=False):
                os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
