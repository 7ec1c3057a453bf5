"""The inside of a command: an ordinary action, or a registry of a run.

    bk -- zygote -- first process of a PID namespace -- the command

Whatever the command starts ends with it. In a sandbox it sees a root of its own, which holds what was declared and nothing else,
and a network without a way out.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from bkrules.execution import linux
from bkrules.execution.devices import make_devices
from bkrules.execution.messages import receive, send

_DEVICES = ("null", "zero", "full", "random", "urandom")
_NOT_STARTED = 127
_MANY = 4096
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)
"""The signals that Python ignores, and a program expects not to be ignored."""


def begin(spec: Mapping[str, Any], channel: socket.socket, death: int, log: int, prepare: Callable[[], None]) -> None:
    """Start a command in a PID namespace of its own, its output to `log`. Its end, or that of `death`, ends all that it started.

    The process in which this is called has one thread and goes on at once. The new one calls `prepare` first.
    """
    if linux.clone3(linux.CLONE_NEWPID) == 0:
        _first_process(lambda: _say(channel, _code(spec, [death], log, _wake_on_end())), prepare)


def begin_sandboxes(channel: socket.socket, death: int, prepare: Callable[[], None]) -> None:
    """Start a process that runs commands in sandboxes, one after the other, as `channel` asks, until `death` or `channel` ends.

    A fork of Python costs more than the namespaces of a sandbox, so there is one for many commands. They share a PID namespace, in
    which nothing is left when the next one starts, and nothing else.
    """
    if linux.clone3(linux.CLONE_NEWPID) == 0:
        _first_process(lambda: _serve(channel, death), prepare)


def _first_process(work: Callable[[], None], prepare: Callable[[], None]) -> None:
    """The first process of a PID namespace, with which the namespace ends. Never returns."""
    try:
        prepare()
        work()
    except BaseException as error:
        os.write(2, f"bk: command: {error!r}\n".encode())
    finally:
        os._exit(0)


def _serve(channel: socket.socket, death: int) -> None:
    wake = _wake_on_end()
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    while True:
        ready, _, _ = select.select([channel.fileno(), death], [], [])
        spec, descriptors = (None, []) if death in ready else receive(channel)
        if spec is None:
            return
        code: int | None = _NOT_STARTED
        try:
            linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
            _enter(spec["sandbox"])
            code = _code(spec, [death, channel.fileno()], descriptors[0], wake)
        except OSError as error:
            os.write(descriptors[0], f"bk: the sandbox cannot be made: {error}\n".encode())
        linux.enter_mounts(home)
        os.close(descriptors[0])
        if code is None:
            return
        _say(channel, code)


def _say(channel: socket.socket, code: int | None) -> None:
    if code is not None:
        send(channel, {"event": "result", "exit_code": code})


def _wake_on_end() -> int:
    """A descriptor that becomes readable when a child ends."""
    wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return wake


def _code(spec: Mapping[str, Any], ends: list[int], log: int, wake: int) -> int | None:
    """Run the command; its exit code once nothing of it is left, or none when one of `ends` says that it shall end."""
    try:
        os.chdir(spec["directory"])
        child = _spawn(spec["arguments"], spec["environment"], log)
    except OSError as error:
        os.write(log, f"{spec['arguments'][0]}: {error.strerror}\n".encode())
        return _NOT_STARTED
    code = None
    while code is None:
        ready, _, _ = select.select([*ends, wake], [], [])
        if ready != [wake]:
            break
        os.read(wake, _MANY)
        code = _reap(child)
    _end_all()
    return code


def _spawn(arguments: list[str], environment: Mapping[str, str], log: int) -> int:
    """Start a program, looked for in its own PATH. Not by fork, which would copy the tables of Python's memory."""
    name = arguments[0]
    folders = [""] if "/" in name else [f"{folder}/" for folder in environment.get("PATH", os.defpath).split(":")]
    files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), *((os.POSIX_SPAWN_DUP2, log, fd) for fd in (1, 2))]
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in folders:
        try:
            return os.posix_spawn(folder + name, arguments, environment, file_actions=files, setsigdef=_PYTHONS)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            failure = error
    raise failure


def _reap(child: int) -> int | None:
    """Take note of whatever has ended; the exit code of `child` when that has, 128 + n for signal n."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code


def _end_all() -> None:
    """Kill every other process of the namespace, and wait until all are gone."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


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
