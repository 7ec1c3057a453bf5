"""Runs daemons plainly on this machine, and yet leaves no trace of them.

An enclosure has namespaces and a cgroup of its own, and what is written in it goes to memory. Unlike a cell it shows the machine
as it is: sudo, login shells and /etc are there, which BuildKit's harness needs. It is made before the clock starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.kinds import Failed

from bkrules.execution import cgroups, linux
from bkrules.plugin import host

ASSETS = Path("/opt/bk")
"""Where a program finds the folder of assets, read-only."""
SCRATCH = Path("/run/bench")
"""A folder in memory."""
_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWPID


def run(program: Callable[[], dict[str, Any]], assets: Path, disk: Path | None = None) -> dict[str, Any]:
    """Call `program` as the first process of an enclosure; what it returns. All that it started ends with it. Raises Failed.

    /tmp is in memory, or the folder `disk`.
    """
    cgroup = f"{host.probe().cgroup}/bk-bench-{os.getpid()}"
    os.makedirs(f"{cgroup}/init")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    group = os.open(f"{cgroup}/init", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    pid = linux.clone3(_NAMESPACES, group)
    if pid == 0:
        _first_process(program, writer, cgroup, assets, disk)
    try:
        os.close(writer)
        with open(reader, "rb") as pipe:
            answer = json.loads(pipe.read() or b'{"error": "it was killed"}')
    finally:
        os.close(group)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        cgroups.remove(cgroup)
    if "error" in answer:
        raise Failed(f"in the enclosure: {answer['error']}")
    return dict(answer)


def _first_process(
    program: Callable[[], dict[str, Any]], writer: int, cgroup: str, assets: Path, disk: Path | None
) -> None:
    """PID 1 of the enclosure. Never returns."""
    try:
        linux.die_with_parent()
        os.setsid()  # a Ctrl-C is for the bench alone, which ends this one
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        linux.leave_network()
        socket.sethostname("localhost")  # sudo looks it up
        _hide_writes(cgroup, assets, disk)
        answer = program()
    except BaseException:
        answer = {"error": traceback.format_exc()}
    try:
        with open(writer, "w") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)


def _hide_writes(cgroup: str, assets: Path, disk: Path | None) -> None:
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("bench", "/run", "tmpfs", 0, "mode=755")
    _overlay("/opt")
    linux.bind(str(assets), str(ASSETS))
    if disk:
        linux.bind(str(disk), "/tmp", read_only=False)
    else:
        linux.mount("bench", "/tmp", "tmpfs", 0, "mode=1777")
    for folder in ("/etc", "/home", "/var/lib"):
        _overlay(folder)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.mount(cgroup, "/sys/fs/cgroup", flags=linux.MS_BIND)


def _overlay(folder: str) -> None:
    """Let what is written below `folder` go to memory."""
    upper, work = (SCRATCH / part / folder.replace("/", "-") for part in ("upper", "work"))
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    linux.mount("bench", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")
