"""The visible state of a shared worker: equal before and after a test that left nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bkrules.cell import control_api
from bkrules.cell.leaks import loops_on
from bkrules.plugin.cell import RunningCell
from bkrules.plugin.guard import time_limit
from bkrules.plugin.spec import hookimpl
from bkrules.plugin.worker import Backend

_WATCHED = ("/tmp", "/var/tmp", "/root", "/home", "/dev/shm", "/src", "/run/bk")
_EXACT = ("/etc",)
_PATIENCE = 60.0


@hookimpl(tryfirst=True)
def bk_state(cell: RunningCell, backend: Backend) -> dict[str, list[str]]:
    """Return processes, mounts, sockets, files and buildkitd's cache."""
    from bkrules.testing import mirror

    with time_limit(_PATIENCE + 1):
        cache, history = _of_buildkitd(backend)
    return {
        "processes": _processes(),
        "mounts": sorted(mount[4] for mount in _mounts()),
        "listening sockets": _listening(),
        "loop devices": list(loops_on(os.stat("/").st_dev)),
        "build cache": cache,
        "build history": history,
        "requests to the mirror that were not counted": list(mirror.record()[1]),
        **{f"names in {folder}": names(folder) for folder in _WATCHED},
        **{f"files in {folder}": _contents(folder) for folder in _EXACT},
    }


def buildctl(backend: Backend, *words: str) -> str:
    """Run buildctl. Return its output. Raises subprocess.CalledProcessError and TimeoutExpired."""
    environment = {**os.environ, "BUILDKIT_HOST": backend.address, **backend.extra_env}
    done = subprocess.run(
        [*backend.buildctl, *words], env=environment, capture_output=True, text=True, check=True, timeout=_PATIENCE
    )
    return done.stdout


def _of_buildkitd(backend: Backend) -> tuple[list[str], list[str]]:
    """Return the lines of the build cache and of the history; no history where only buildctl knows how to ask."""
    try:
        records = control_api.usage(backend, _PATIENCE)
        return [record.hex() for record in records], [name.hex() for name in control_api.history(backend, _PATIENCE)]
    except control_api.Unanswered:
        return [buildctl(backend, "du")], []


def _mounts() -> list[list[str]]:
    """Return the fields of each mount."""
    return [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _processes() -> list[str]:
    """Return the names of the processes, without zombies, which only wait for the end of the cell."""
    names = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if rest.split()[0] != "Z":
            names.append(name)
    return sorted(names)


def _listening() -> list[str]:
    found = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    return sorted(found)


def _files(folder: str) -> Iterator[Path]:
    """Yield the files below a folder, without those that no process can change.

    The interpreter and its packages may have tens of thousands of files there, in overlays without an upper folder. The
    last mount on a point counts.
    """
    constant = {mount[4]: mount[-3] == "overlay" and "upperdir=" not in mount[-1] for mount in _mounts()}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not constant.get(f"{parent}/{name}")]
        yield from (Path(parent, name) for name in files)


def names(folder: str) -> list[str]:
    """Return the paths of the files below a folder that a process could change, sorted."""
    return sorted(map(str, _files(folder)))


def _contents(folder: str) -> list[str]:
    files = filter(Path.is_file, _files(folder))
    return sorted(f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
