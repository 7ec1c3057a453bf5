"""Run daemons directly on this machine, and leave no trace of them.

An enclosure has new namespaces and a new cgroup, and its files are in memory. Unlike a cell it shows the machine
as it is: sudo, login shells and /etc are there, which BuildKit's harness needs. There is no network in it but the loopback.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spaces import cgroup_name

from bkrules.plugin import host
from bkrules.sandbox import cgroups, syscalls

ASSETS = Path("/opt/bk")
"""Where a program finds the folder of assets, read-only."""
SCRATCH = Path("/run/enclosure")
"""A folder in memory."""
SHARED = SCRATCH / "shared"
"""Where a program finds the folder to which it may write for good."""
_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWPID


class Broken(Exception):
    """A program in an enclosure did not come to its end."""


def run(
    program: Callable[[], dict[str, Any]], assets: Path, *, disk: Path | None = None, shared: Path | None = None
) -> dict[str, Any]:
    """Call `program` as the first process of an enclosure; what it returns. All that it started ends with it. Raises Broken.

    /tmp is in memory, or the folder `disk`. What is written to the folder `shared` is there afterwards.
    """
    cgroup = f"{host.probe().cgroup}/{cgroup_name()}"
    os.makedirs(f"{cgroup}/init")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    group = os.open(f"{cgroup}/init", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    pid = syscalls.clone3(_NAMESPACES, group)
    if pid == 0:
        _first_process(program, writer, cgroup, assets, disk, shared)
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
        raise Broken(f"in the enclosure: {answer['error']}")
    return dict(answer)


def run_command(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Inside: run a command to its end; its `seconds`, its exit `status`, and its `output`."""
    log = SCRATCH / f"{Path(arguments[0]).name}.log"
    began = time.monotonic()
    command = os.posix_spawn(
        arguments[0],
        list(arguments),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    while True:
        pid, status = os.wait()  # orphans of the command come here too
        if pid == command:
            seconds = time.monotonic() - began
            return {"seconds": seconds, "status": os.waitstatus_to_exitcode(status), "output": log.read_text()}


def _first_process(
    program: Callable[[], dict[str, Any]],
    writer: int,
    cgroup: str,
    assets: Path,
    disk: Path | None,
    shared: Path | None,
) -> None:
    """PID 1 of the enclosure. Never returns."""
    try:
        syscalls.die_with_parent()
        os.setsid()  # a Ctrl-C is for its parent alone, which ends this one
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscalls.leave_network()
        socket.sethostname("localhost")  # sudo looks it up
        _hide_writes(cgroup, assets, disk, shared)
        answer = program()
    except BaseException:
        answer = {"error": traceback.format_exc()}
    try:
        with open(writer, "w") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)


def _hide_writes(cgroup: str, assets: Path, disk: Path | None, shared: Path | None) -> None:
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("enclosure", "/run", "tmpfs", 0, "mode=755")
    _overlay("/opt")
    syscalls.bind(str(assets), str(ASSETS))
    if shared:
        syscalls.bind(str(shared), str(SHARED), read_only=False)
    if disk:
        syscalls.bind(str(disk), "/tmp", read_only=False)
    else:
        syscalls.mount("enclosure", "/tmp", "tmpfs", 0, "mode=1777")
    for folder in ("/etc", "/home", "/var/lib"):
        _overlay(folder)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    syscalls.mount(cgroup, "/sys/fs/cgroup", flags=syscalls.MS_BIND)


def _overlay(folder: str) -> None:
    """Let what is written below `folder` go to memory."""
    upper, work = (SCRATCH / part / folder.replace("/", "-") for part in ("upper", "work"))
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    syscalls.mount("enclosure", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")
