"""The inside of a cell that several tests share: its first process runs them one after the other.

After each test the worker's state is put back and compared with what it was. Where they differ the worker is tainted: the cell
ends, and the answer says what differs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bkrules.cell.leaks import loops_on
from bkrules.model.status import Status
from bkrules.plugin.daemon import Daemons
from bkrules.plugin.worker import Backend, Worker
from bkrules.sandbox.ipc import receive, send

SOURCES = Path("/src")
_WATCHED = ("/tmp", "/var/tmp", "/root", "/home", "/dev/shm", "/src", "/run/bk")
_EXACT = ("/etc",)
_RESET = (("prune", "--all"), ("prune-histories",))
_PATIENCE = 60.0


def run_tests(
    backend: Backend,
    spec: Mapping[str, Any],
    daemons: Daemons,
    channel: socket.socket,
    worker: Worker,
    run_test: Callable[[Backend, Mapping[str, Any], Daemons], dict[str, Any]],
) -> dict[str, Any]:
    """Run the tests that arrive on the channel, each with its sources. The supervisor copies the logs of each."""
    from bkrules.testing.sandbox import mirror_record  # with requests, which a fresh cell without a test does not need

    first = state(backend, daemons, worker)
    while True:
        message, _ = receive(channel)
        if message is None or message["event"] == "end":
            return {"status": Status.PASSED}
        _write_sources(message["sources"])
        (daemons.logs / "test.log").unlink(missing_ok=True)
        begins = {path.name: path.stat().st_size for path in daemons.logs.glob("*.log")}
        seen = {"logs": begins, "requests": len(mirror_record()[0])}
        began = time.time()
        result = run_test(backend, {**spec, **message["spec"], "seen": seen}, daemons)
        tainted = [f"{name}, which the test has stopped" for name in daemons.stopped]
        tainted += ["what the test left, since it was ended"] if result["status"] == Status.TIMED_OUT else []
        if not tainted and not daemons.dead():
            reset(backend)
            now = state(backend, daemons, worker)
            tainted = sorted(name for name in {*first, *now} if first.get(name) != now.get(name))
        send(channel, {"event": "cell", "began": began, **result, "tainted": tainted})


def _write_sources(sources: Mapping[str, tuple[str, bool]]) -> None:
    """Write the sources of a test: by path, the content in base64 and whether it is executable."""
    for path, (text, executable) in sources.items():
        target = SOURCES / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(text))
        target.chmod(0o755 if executable else 0o644)


def reset(backend: Backend) -> None:
    """Put back what every test changes: the build cache, the history, the test's own folders."""
    for words in _RESET:
        _buildctl(backend, *words)
    shutil.rmtree("/tmp/pytest", ignore_errors=True)
    for path in SOURCES.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def state(backend: Backend, daemons: Daemons, worker: Worker) -> dict[str, str]:
    """What can be seen of a worker's state, by its name: equal before and after a test that left nothing."""
    from bkrules.testing.sandbox import mirror_record

    found = {
        "processes": _processes(),
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "listening sockets": _listening(),
        "loop devices": list(loops_on(os.stat("/").st_dev)),
        "build cache": [_buildctl(backend, "du")],
        "requests to the mirror that were not counted": mirror_record()[1],
        **{f"names in {folder}": _names(folder) for folder in _WATCHED},
        **{f"files in {folder}": _contents(folder) for folder in _EXACT},
        **worker.state(daemons),
    }
    return {name: hashlib.sha256("\n".join(lines).encode()).hexdigest() for name, lines in found.items()}


def _buildctl(backend: Backend, *words: str) -> str:
    environment = {**os.environ, "BUILDKIT_HOST": backend.address, **backend.extra_env}
    done = subprocess.run(
        [*backend.buildctl, *words], env=environment, capture_output=True, text=True, check=True, timeout=_PATIENCE
    )
    return done.stdout


def _processes() -> list[str]:
    """Their names; zombies, which wait for nobody but the end of the cell, are left out."""
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


def _files(folder: str) -> Iterable[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names))


def _names(folder: str) -> list[str]:
    return sorted(str(path) for path in _files(folder))


def _contents(folder: str) -> list[str]:
    return sorted(
        f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in _files(folder) if path.is_file()
    )
