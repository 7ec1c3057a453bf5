"""What a cell left behind: everything that it could have made in the kernel, looked for once it has ended."""

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


class Belongings:
    """What one cell has, written down while it lives. `cgroup` is its cgroup2 folder, `root` where its tmpfs is mounted.

    `strange` are the paths of what lay among its results and is no file, folder or link.
    """

    def __init__(self, cgroup: str, root: str) -> None:
        self.cgroup, self.root = cgroup, root
        self.strange: list[str] = []
        self.namespaces: set[str] = set()
        self.device = -1
        self.fuse: list[int] = []
        self._subordinate = _stamps()

    def see(self, pid: int) -> None:
        """Take down the namespaces of the cell's first process, which may have changed."""
        self.namespaces |= {os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}

    def leftovers(self) -> list[str]:
        """What is still there after the cell's first process has been waited for, each with its kind; sorted.

        No process is left in its namespaces, since they all end with the first one of their PID namespace. What could keep one
        alive is a mount of it outside of the cell, as `ip netns` makes them.
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
        """Whether a connection is there and no cell that lives has been given its number again."""
        return os.path.exists(f"{FUSE_CONNECTIONS}/{number}") and bool(unseen_by_others([number], ()))


def fuse_connections(processes: list[int]) -> list[int]:
    """The connections of the FUSE mounts that these processes see."""
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
    """Those of the connections that no process but these sees: what a cell says are its own may be those of others."""
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - set(processes)
    return set(connections) - set(fuse_connections(sorted(others)))


def abort(connections: Iterable[int]) -> None:
    """End FUSE connections, so that who waits for an answer gets an error."""
    for number in connections:
        with suppress(OSError):  # it has ended meanwhile, or this process sees none
            Path(FUSE_CONNECTIONS, str(number), "abort").write_text("1")


def _command(pid: int) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return f"{pid} ({words[:80]})"
    return f"{pid} (ended)"


def _mounts() -> Iterator[tuple[str, str]]:
    """What of its file system each mount of the machine shows, which for a namespace is its name, and where."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        inner, point = line.split()[3:5]
        yield inner, point


def loops_on(device: int) -> Iterator[str]:
    """Loop devices whose file lies on that file system. Each is detached, so that its memory is free again."""
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
