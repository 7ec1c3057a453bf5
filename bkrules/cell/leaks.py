"""The leak check: looks for everything that a cell could have made in the kernel, once the cell has ended."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bkrules.sandbox import cgroups
from bkrules.sandbox.syscalls import FUSE_CONNECTIONS

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts")
SUBORDINATE = ("/etc/subuid", "/etc/subgid")
_LOOP_GET_STATUS64, _LOOP_CLR_FD = 0x4C05, 0x4C01


class LeakCheck:
    """The leak check of one cell, which records what the cell has while it runs.

    `cgroup` is the cgroup2 folder of the cell, and `root` the mount point of its tmpfs. `strange` are the paths of its results that
    are no file, folder or link.
    """

    def __init__(self, cgroup: str, root: str) -> None:
        self.cgroup, self.root = cgroup, root
        self.strange: list[str] = []
        self.namespaces: set[str] = set()
        self.device = -1
        self.fuse: list[int] = []
        self._subordinate = _stamps()

    def see(self, pid: int) -> None:
        """Record the namespaces of the cell's first process, which may have changed."""
        self.namespaces |= {os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}

    def leaks(self) -> list[str]:
        """Return the leaks of the cell, each with its kind, sorted. Call this after the cell's first process has been reaped.

        No process is left in its namespaces, since all end with the first process of their PID namespace. A namespace can stay
        alive when it is mounted outside of the cell, as `ip netns` does.
        """
        found = [f"process {_command(pid)}" for pid in cgroups.processes(self.cgroup)]
        for inner, point in _mounts():
            if inner in self.namespaces:
                found.append(f"namespace {inner}, mounted on {point}")
            elif point == self.root or point.startswith(f"{self.root}/"):
                found.append(f"mount {point}")
        found += [f"FUSE connection {number}" for number in self.fuse if self._is_connected(number)]
        found += [f"loop device {device}" for device in loops_on(self.device)]
        found += [f"file {path}" for path in self.strange]
        found += [f"change of {path}" for path, stamp in _stamps().items() if stamp != self._subordinate[path]]
        return sorted(found)

    def _is_connected(self, number: int) -> bool:
        """Return whether a connection exists and the kernel has not reused its number for a running cell."""
        return os.path.exists(f"{FUSE_CONNECTIONS}/{number}") and bool(unseen_by_others([number], ()))


def fuse_connections(processes: list[int]) -> list[int]:
    """Return the connections of the FUSE mounts that these processes see."""
    found = set()
    seen = set()
    for pid in processes:
        with suppress(OSError):
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace in seen:
                continue
            seen.add(namespace)
            for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
                before, _, after = line.partition(" - ")
                if after.startswith("fuse"):
                    found.add(int(before.split()[2].partition(":")[2]))
    return sorted(found)


def unseen_by_others(connections: Iterable[int], processes: Iterable[int]) -> set[int]:
    """Return the connections that only these processes see. A cell may name connections that belong to others."""
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - set(processes)
    return set(connections) - set(fuse_connections(sorted(others)))


def abort(connections: Iterable[int]) -> None:
    """End FUSE connections, so that processes that wait for an answer get an error."""
    for number in connections:
        with suppress(OSError):  # the connection has ended meanwhile, or this process sees no connections
            Path(FUSE_CONNECTIONS, str(number), "abort").write_text("1")


def _command(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return f"{pid} ({words[:80]})"
    return f"{pid} (ended)"


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield each mount of the machine: the root within its file system, which for a namespace is its name, and the mount point."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        inner, point = line.split()[3:5]
        yield inner, point


def loops_on(device: int) -> Iterator[str]:
    """Yield the loop devices whose file lies on a file system. Detach each of them, so that its memory is freed."""
    for name in os.listdir("/sys/block"):
        if not (name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop")):
            continue
        with suppress(OSError), open(f"/dev/{name}", "rb") as loop:
            status = fcntl.ioctl(loop, _LOOP_GET_STATUS64, b"\0" * 232)
            if struct.unpack_from("=Q", status)[0] == device:
                yield f"/dev/{name}"
                fcntl.ioctl(loop, _LOOP_CLR_FD)


def _stamps() -> dict[str, tuple[int, int]]:
    found = {}
    for path in SUBORDINATE:
        found[path] = (0, 0)
        with suppress(FileNotFoundError):
            status = os.stat(path)
            found[path] = (status.st_mtime_ns, status.st_size)
    return found
