"""The inside of a session's cell: its first process reports that all is ready, and runs the commands it receives."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Sequence

from bkrules.cell.protocol import CellResult, Command, Ready, said_by_bk
from bkrules.model.status import Status
from bkrules.plugin.daemon import Daemons
from bkrules.plugin.worker import Backend
from bkrules.sandbox import syscalls
from bkrules.sandbox.ipc import receive, send


def serve(backend: Backend, daemons: Daemons, channel: socket.socket) -> CellResult:
    """Report that the backend is ready, then run the command that arrives on the channel, or wait for the end of the session."""
    send(channel, Ready(backend.address, dict(backend.extra_env)))
    document, descriptors = receive(channel)
    message = None if document is None else said_by_bk(document)
    code = _run(message, descriptors, backend) if isinstance(message, Command) else 0
    ended = [f"{daemon.name} ended: {daemons.status(daemon)}" for daemon in daemons.dead()]
    return CellResult(Status.PASSED, reason="; ".join(ended), exit_code=code)


def _run(message: Command, descriptors: list[int], backend: Backend) -> int:
    """Run a command on the descriptors that came with it: three for its streams, or one to send a terminal to."""
    environment = {**os.environ, "BUILDKIT_HOST": backend.address, **backend.extra_env, **message.environment}
    terminal = len(descriptors) == 1
    if terminal:
        descriptors = [_new_terminal(descriptors[0], message.size)] * 3
    pid = os.fork()
    if pid == 0:
        _become(message.arguments, environment, message.directory, descriptors, terminal)
    for descriptor in set(descriptors):
        os.close(descriptor)
    select.select([os.pidfd_open(pid)], [], [])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


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


def _become(
    arguments: Sequence[str], environment: dict[str, str], directory: str, descriptors: list[int], terminal: bool
) -> None:
    """Turn this forked process into the command. Never returns."""
    try:
        syscalls.set_name("session")
        os.setsid()
        if terminal:
            fcntl.ioctl(descriptors[0], termios.TIOCSCTTY, 0)
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
