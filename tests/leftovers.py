"""What runs of bk leave on this machine, judged by whose it is: other tests and other work come and go meanwhile.

A process belongs to a test when it descends from the test's own process, lies in a cell's cgroup of a run of the test, or has
the test's disk cache in its command line. A cgroup is that of a run that the test started, or whose run folder is in the test's
disk cache; not one that was there before the test, since process ids come round again. A mount or a socket has a name below the
test's folders.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PR_SET_CHILD_SUBREAPER = 36
FUSE_CONNECTIONS = "mount -t fusectl none /sys/fs/fuse/connections; ls /sys/fs/fuse/connections"


class Leftovers:
    """Looks for what is there of a test's runs of bk; called with their disk cache, it returns the names by kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """The test's temporary folder. Its `tmp` is the TMPDIR of all that the test starts."""
        self.started: set[int] = set()
        """The processes that this process has started. The code that started one waits for it, so it is no leftover."""
        self._connections: set[str] = set()
        self._earlier = {os.path.basename(path) for path in _cgroups()}
        self._network = os.readlink("/proc/self/ns/net")

    def __call__(self, cache: Path) -> dict[str, list[str]]:
        """Return what there is now, by kind. What is equal before and after a run was not left by it."""
        own = self._own_processes(cache)
        networks = {network for pid in own if (network := _link(pid, "ns/net")) not in ("", self._network)}
        self._connections |= _fuse_mounts(own)
        found = {
            "processes": [f"{pid} {command}" for pid in own if (command := _command(pid))],
            "network namespaces": sorted(networks),
            "mounts": [
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if f"{cache}" in line or f"{self.folder}" in line
            ],
            "fuse connections": self._own_connections(own),
            "cgroups": [path for path in _cgroups() if self._is_own_cgroup(os.path.basename(path), cache)],
            "sockets": [
                line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if f"{cache}" in line
            ],
            "run folders": _names(cache / "run"),
            "temporary files": _names(self.folder / "tmp"),
        }
        self._bury(own)
        return found

    def _own_processes(self, cache: Path) -> list[int]:
        parents = {pid: parent for pid in _processes() if (parent := _parent(pid))}
        return sorted(
            pid
            for pid in parents
            if os.getpid() in _ancestors(pid, parents)
            or f"{cache}/" in _command(pid)
            or any(self._is_own_cgroup(name, cache) for name in _text(pid, "cgroup").replace("\n", "/").split("/"))
        )

    def _is_own_cgroup(self, name: str, cache: Path) -> bool:
        """Whether it is `bk-<run folder>-<number>` of a run of this test; a run folder is `<process id>-<random>`."""
        kind, _, rest = name.partition("-")
        run, _, number = rest.rpartition("-")
        pid = run.partition("-")[0]
        if kind != "bk" or not pid.isdecimal() or not number.isdecimal() or name in self._earlier:
            return False
        return int(pid) in self.started or (cache / "run" / run).exists()

    def _own_connections(self, own: Iterable[int]) -> list[str]:
        """The connections that a process of this test has had, and that are not those of another process meanwhile."""
        if not self._connections:
            return []
        command = ["unshare", "-m", "sh", "-c", FUSE_CONNECTIONS]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return sorted(self._connections & {*listed} - _fuse_mounts({*_processes()} - {*own}))

    def _bury(self, own: Iterable[int]) -> None:
        """Wait for those that have ended as orphans: this process is their parent, and nobody else waits for them."""
        for pid in {*own} - self.started:
            if _parent(pid) == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leftovers]:
    """Yield a `Leftovers` for a test: this process becomes the parent of orphans, and notes which processes it starts."""
    found = Leftovers(folder)
    start = subprocess.Popen.__init__

    def noting(process: subprocess.Popen[bytes], *arguments: object, **options: object) -> None:
        start(process, *arguments, **options)  # type: ignore[call-overload]
        found.started.add(process.pid)

    monkeypatch.setattr(subprocess.Popen, "__init__", noting)
    (folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", f"{folder}/tmp")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield found
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid := parents.get(pid, 0):
        yield pid


def _fuse_mounts(pids: Iterable[int]) -> set[str]:
    """The numbers of the FUSE connections that these processes have mounted: those of their devices."""
    namespaces = {_link(pid, "ns/mnt"): pid for pid in pids}
    lines = [line for pid in namespaces.values() for line in _text(pid, "mountinfo").splitlines()]
    return {
        line.split()[2].partition(":")[2] for line in lines if line.partition(" - ")[2].startswith(("fuse ", "fuse."))
    }


def _cgroups() -> Iterator[str]:
    """The paths of all cgroups. By os.walk, since a folder may go while it is looked into."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{folder}/{name}" for name in names)


def _parent(pid: int) -> int:
    return int((_text(pid, "stat").rpartition(")")[2].split() or ["", "0"])[1])


def _command(pid: int) -> str:
    return _text(pid, "cmdline").replace("\0", " ")


def _text(pid: int, name: str) -> str:
    """The text of a file of a process, or nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}", name).read_text(errors="replace")
    except OSError:
        return ""


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
