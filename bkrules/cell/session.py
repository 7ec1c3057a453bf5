"""The inside of a session's cell: its first process reports that all is ready, and runs the command it receives."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bkrules.cell.protocol import CellResult, Command, Ready, said_by_bk
from bkrules.model.status import Status
from bkrules.plugin.daemon import Daemons, DaemonSpec
from bkrules.plugin.worker import Backend
from bkrules.sandbox import syscalls
from bkrules.sandbox.ipc import receive, send
from bkrules.system.waiting import readable

MACHINE = ("/usr", "/etc/alternatives")
"""The folders of the machine that a shell in a cell needs; tests do not see them."""
HIDDEN = "/opt/bk/machine"
"""The folder in a cell below which they are until its test has failed."""
STRACE = ("strace", "-D", "-f", "-I2", "-A", "-tt", "-T", "-y", "-s", "256")
"""strace of a daemon and all that it starts. With -D the daemon keeps the process that bk started, and its sockets; with -I2
a signal ends strace.
"""
TRACE = ".strace"
PATIENCE = 10.0
"""The limit in seconds for the end of all tracers."""
OUT_OF_TIME = 124
"""The exit code of a command that was killed when its time was over, as timeout(1) has it."""


class Tracer:
    """Calls a hook, and has daemons of these names start under strace, which writes `NAME.strace` to the folder `logs`."""

    def __init__(self, hook: Callable[..., object], names: Sequence[str], logs: Path) -> None:
        self._hook, self._names, self._logs = hook, names, logs

    def __call__(self, name: str, **arguments: Any) -> None:
        """Call the hook `name`."""
        self._hook(name, **arguments)
        if name == "bk_daemon_starting" and arguments["spec"].name in self._names:
            self._trace(arguments["spec"])

    def _trace(self, spec: DaemonSpec) -> None:
        file = self._logs / f"{spec.name}{TRACE}"
        file.touch()
        file.chmod(0o666)  # a daemon in another user namespace writes it too
        words = [*STRACE, "-o", str(file)]
        if spec.user is not None:  # strace itself stays root, otherwise setuid helpers would get no privileges
            words += ["-u", spec.user.name]
            spec.environment |= {"HOME": spec.user.home, "USER": spec.user.name}
            spec.user = None
        spec.arguments[:0] = [*words, "--"]


def end_tracers() -> None:
    """End every strace in the cell, so that it writes what it still has in memory. Bounded by PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (folder / "comm").read_text() == "strace\n":
                tracer = os.pidfd_open(int(folder.name))
                signal.pidfd_send_signal(tracer, signal.SIGTERM)
                readable([tracer], deadline - time.monotonic())


def show_machine() -> None:
    """Mount the machine's folders at their places. Raises OSError."""
    for folder in MACHINE:
        if os.path.isdir(HIDDEN + folder):
            os.makedirs(folder, exist_ok=True)
            syscalls.mount(HIDDEN + folder, folder, flags=syscalls.MS_BIND | syscalls.MS_REC)


def serve(
    backend: Backend | None, daemons: Daemons, channel: socket.socket, extra: Mapping[str, str], reason: str = ""
) -> CellResult:
    """Report that all is ready, then run the command that arrives on the channel, or wait for the end of the session.

    `extra` are the variables of extra workers. `reason` is why a test has failed in this cell.
    """
    variables = {**({"BUILDKIT_HOST": backend.address, **backend.extra_env} if backend else {}), **extra}
    _report(backend, daemons, channel, reason)
    before = {daemon.name for daemon in daemons.dead()}
    document, descriptors = receive(channel)
    message = None if document is None else said_by_bk(document)
    code, notes = _run(message, descriptors, variables) if isinstance(message, Command) else (0, [])
    dead = [daemon for daemon in daemons.dead() if daemon.name not in before]
    notes += [f"{daemon.name} ended: {daemons.status(daemon)}" for daemon in dead]
    return CellResult(Status.PASSED, reason="; ".join(notes), exit_code=code)


def terminal_for_test(backend: Backend, daemons: Daemons, channel: socket.socket) -> int:
    """Report that all is ready, and return a new terminal, which the user who debugs the test is connected to.

    Ends this process, and so the cell, when the user does not want it any more.
    """
    _report(backend, daemons, channel)
    document, descriptors = receive(channel)
    message = None if document is None else said_by_bk(document)
    if not isinstance(message, Command):
        os._exit(0)
    os.environ.update(message.environment)
    return _new_terminal(descriptors[0], message.size)


def _report(backend: Backend | None, daemons: Daemons, channel: socket.socket, reason: str = "") -> None:
    names = tuple(daemon.name for daemon in daemons.running)
    more = dict(backend.extra_env) if backend else {}
    send(channel, Ready(backend.address if backend else "", more, reason=reason, daemons=names))


def _run(message: Command, descriptors: list[int], variables: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run a command on the descriptors that came with it: three for its streams, or one to send a terminal to.

    Return its exit code, and a note when its time was over.
    """
    environment = {**os.environ, **variables, **message.environment}
    terminal = len(descriptors) == 1
    if terminal:
        descriptors = [_new_terminal(descriptors[0], message.size)] * 3
    pid = os.fork()
    if pid == 0:
        _become(message.arguments, environment, message.directory, descriptors, terminal)
    for descriptor in set(descriptors):
        os.close(descriptor)
    if not readable([os.pidfd_open(pid)], message.seconds or None):
        return OUT_OF_TIME, [f"the time is over: {message.seconds:g} s"]  # all processes end with this one
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code, []


def _new_terminal(answer: int, size: tuple[int, int]) -> int:
    """Make a terminal of this cell, and send its other end through the socket `answer`."""
    near, far = os.openpty()
    set_size(far, size)
    with socket.socket(fileno=answer) as channel:
        socket.send_fds(channel, [b"terminal"], [near])
    os.close(near)
    return far


def set_size(terminal: int, size: tuple[int, int]) -> None:
    """Set the rows and columns of a terminal."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def control(terminal: int) -> None:
    """Make a terminal that of this session of processes: Ctrl-C there is a signal here. Raises OSError."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _become(
    arguments: Sequence[str], environment: dict[str, str], directory: str, descriptors: list[int], terminal: bool
) -> None:
    """Turn this forked process into the command. Never returns."""
    try:
        syscalls.set_name("session")
        os.setsid()
        if terminal:
            control(descriptors[0])
        copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in descriptors]
        for number, descriptor in enumerate(copies):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(directory if os.path.isdir(directory) else "/")
        os.execvpe(arguments[0], list(arguments), environment)
    except OSError as error:
        os.write(2, f"bk: cannot run {arguments[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(syscalls.NOT_FOUND)
