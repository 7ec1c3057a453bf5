"""The inside of a command: an ordinary action, or a registry of a run.

    bk -- zygote -- init of a PID namespace -- the command

Whatever the command starts ends with it. With a sandbox it sees a root of its own, which holds what was declared and nothing else,
and a network without a way out.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from bkrules.execution import linux
from bkrules.execution.cell import make_devices
from bkrules.execution.messages import send

_DEVICES = ("null", "zero", "full", "random", "urandom")
_NOT_STARTED = 127


def starter(spec: Mapping[str, Any], log: int) -> Callable[[socket.socket, int], None]:
    """The function that runs a command to its end, in a process that was forked for it; its output goes to `log`."""

    def start(channel: socket.socket, death: int) -> None:
        flags = linux.CLONE_NEWPID
        if spec["sandbox"]:
            flags |= linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
        pid = linux.clone3(flags)
        if pid == 0:
            linux.die_with_parent()
            os.close(death)
            _init(spec, log)
        status = _keep_until_end(pid, death)
        if status is not None:
            send(channel, {"event": "result", "exit_code": os.waitstatus_to_exitcode(status)})

    return start


def _keep_until_end(pid: int, death: int) -> int | None:
    """Wait for a child; its wait status. When bk is gone, or wants it to end, the child is killed, and there is none."""
    ended = os.pidfd_open(pid)
    found, _, _ = select.select([death, ended], [], [])
    if ended not in found:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(ended)
    return status if ended in found else None


def _init(spec: Mapping[str, Any], log: int) -> None:
    """The first process of the namespace: starts the command, reaps, and ends with its exit status. Never returns."""
    code = _NOT_STARTED
    try:
        if spec["sandbox"]:
            _enter(spec["sandbox"])
        child = os.fork()
        if child == 0:
            _become(spec, log)
        while True:
            pid, status = os.wait()
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                code = code if code >= 0 else 128 - code
                return
    except OSError as error:
        os.write(log, f"bk: the sandbox cannot be made: {error}\n".encode())
    finally:
        os._exit(code)


def _become(spec: Mapping[str, Any], log: int) -> None:
    try:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(spec["directory"])
        os.execvpe(spec["arguments"][0], spec["arguments"], spec["environment"])
    except OSError as error:
        os.write(2, f"{spec['arguments'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_STARTED)


def _enter(sandbox: Mapping[str, Any]) -> None:
    """The command's own root, on a tmpfs: binds of what was declared, a few devices, /proc, an empty /tmp."""
    root = sandbox["root"]
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("bk", root, "tmpfs", 0, "mode=755")
    for folder in ("proc", "dev", "tmp"):
        os.mkdir(f"{root}/{folder}")
    os.chmod(f"{root}/tmp", 0o1777)
    for source, target, writable in sandbox["binds"]:
        linux.bind(source, root + target, read_only=not writable)
    for target, link in sandbox["links"]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        if not os.path.lexists(root + target):
            os.symlink(link, root + target)
    make_devices(root, _DEVICES)
    linux.mount("proc", f"{root}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    linux.pivot_root(root)
    socket.sethostname("sandbox")
    linux.loopback_up()
