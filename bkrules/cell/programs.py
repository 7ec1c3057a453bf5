"""The programs that bk runs in a cell: an action's commands, pytest on a test, or a test that is a program.

Each runs in a child that may control the daemons.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from bkrules.cell.log_ends import end_of
from bkrules.cell.protocol import Outcome, Program
from bkrules.cell.races import race_in
from bkrules.cell.task import task_of
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.cell_log import note
from bkrules.plugin.daemon import Daemons
from bkrules.plugin.spec import hookimpl
from bkrules.plugin.worker import Backend
from bkrules.sandbox import syscalls
from bkrules.system.waiting import readable
from bkrules.testing.control import Control, answer

UNDECLARED = "TEST_UNDECLARED_OUTPUTS_DIR"
_FULL = 1 << 20
_LAST_WORDS = 2.0
PATIENCE = 20.0
"""The limit in seconds for the end or the restart of a daemon when a test asks for it."""


class Programs:
    """bk's implementation of `bk_run_program`."""

    def __init__(self, call: Callable[[str, RunningCell], object]) -> None:
        """Create it; `call` calls a hook of the cell."""
        self._call = call

    @hookimpl(trylast=True)
    def bk_run_program(self, cell: RunningCell, backend: Backend) -> ProgramResult:
        """Run the commands of an action, or a test."""
        if cell.program == Program.COMMANDS:
            return self._attended(cell, partial(_run_commands, cell, backend))
        # In memory, since the disk may be full when the test ends.
        with open(os.memfd_create("outcome"), "rb") as file, _undeclared():
            result = self._attended(cell, partial(_run_test, backend, cell, f"/proc/self/fd/{file.fileno()}"))
            found = Outcome.read(file.read())
        if result.failure in (FailureClass.NONE, FailureClass.TEST) and found:
            failure, reason = found.failure or result.failure, found.reason or result.reason
            result = ProgramResult(found.status, failure, reason, found.missing)
        elif result.status == Status.PASSED:
            result = ProgramResult(Status.FAILED, FailureClass.TEST, "the test ended without an outcome")
        return out_of(result, cell.daemons.logs)

    def _attended(self, cell: RunningCell, program: Callable[[Control], int]) -> ProgramResult:
        """Run `program` in a child with test.log as its output, and carry out its requests."""
        daemons, timeout = cell.daemons, cell.timeout
        sys.stdout.flush()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            syscalls.set_name("test")
            near.close()
            control = Control([daemon.name for daemon in daemons.running], far)
            _run_child(daemons, lambda: program(control), task_of(cell).terminal)
        far.close()
        if (terminal := task_of(cell).terminal) is not None:
            os.close(terminal)  # its user hears of its end when the last process in the cell has closed it
        ended = os.pidfd_open(pid)
        with near:
            in_time = _ends(ended, near, daemons, time.monotonic() + timeout)
        if not in_time:
            stopped = [f"{daemon.name} is stopped" for daemon in daemons.running if daemons.is_stopped(daemon)]
            reason = "; ".join([f"it took more than {timeout:g} s", *stopped])
            note(daemons.logs, reason)
            self._end_in_time(cell, pid, ended)
            return ProgramResult(Status.TIMED_OUT, FailureClass.TIMEOUT, reason)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        dead = [f"{daemon.name} ended during the test: {daemons.status(daemon)}" for daemon in daemons.dead()]
        if dead:
            return ProgramResult(Status.FAILED, FailureClass.INFRASTRUCTURE, "; ".join(dead))
        if code == 0:
            return ProgramResult(Status.PASSED)
        reason = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        return ProgramResult(Status.FAILED, FailureClass.TEST, reason)

    def _end_in_time(self, cell: RunningCell, pid: int, ended: int) -> None:
        """End a program that has taken too long: it is stopped while plugins look at the cell, and may then report its place."""
        os.kill(pid, signal.SIGSTOP)
        self._call("bk_timed_out", cell)
        for number in (signal.SIGALRM, signal.SIGCONT):
            os.kill(pid, number)
        readable([ended], _LAST_WORDS)
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _undeclared() -> Iterator[None]:
    """Make the folder of undeclared outputs for a test; an empty one is removed after it."""
    folder = os.environ[UNDECLARED]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    yield
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _run_test(backend: Backend, cell: RunningCell, outcome: str, control: Control) -> int:
    test = task_of(cell).test
    if test is not None and test.program is not None:
        from bkrules.cell import executable

        return executable.main(backend, cell, control, outcome)
    from bkrules.cell import pytest_run

    return pytest_run.main(backend, cell, control, outcome)


def _run_commands(cell: RunningCell, backend: Backend, _control: Control) -> int:
    environment = {**os.environ, "BUILDKIT_HOST": backend.address, **backend.extra_env}
    for words in task_of(cell).commands:
        command = [*backend.buildctl, *words[1:]] if words[0] == "buildctl" else words
        code = os.spawnvpe(os.P_WAIT, command[0], command, environment)
        if code:
            return code if code > 0 else 128 - code
    return 0


def _ends(ended: int, channel: socket.socket, daemons: Daemons, deadline: float) -> bool:
    """Return whether a child ends before `deadline`. Meanwhile, carry out its requests on the channel."""
    watched = [ended, channel.fileno()]
    while found := readable(watched, deadline - time.monotonic()):
        if ended in found:
            return True
        if not answer(channel, daemons, max(0, min(PATIENCE, deadline - time.monotonic()))):
            watched = [ended]
    return False


def _run_child(daemons: Daemons, program: Callable[[], int], terminal: int | None) -> None:
    code = 70
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _connect(daemons.logs / "test.log", terminal)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it lives as long as the process
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = program()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _connect(log: Path, terminal: int | None) -> None:
    """Make a log the output of this process, or a terminal its input and output."""
    if terminal is not None:
        from bkrules.cell.session import control

        os.setsid()
        control(terminal)
        streams = (terminal,) * 3
    else:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        streams = (os.open("/dev/null", os.O_RDONLY), output, output)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    if terminal is not None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it lives as long as the process


def out_of(result: ProgramResult, logs: Path) -> ProgramResult:
    """Return a result with a data race or the exhausted resource as its reason, if that is why it failed."""
    if result.failure not in (FailureClass.TEST, FailureClass.INFRASTRUCTURE):
        return result
    if race := race_in(logs):  # such a daemon has ended, and would in another sandbox
        return replace(result, failure=FailureClass.TEST, reason=f"{race}; {result.reason}")
    if lack := exhausted(logs):
        return replace(result, failure=FailureClass.RESOURCES, reason=f"{lack}; {result.reason}")
    return result


def exhausted(logs: Path, root: str = "/", out: str = "/out") -> str:
    """Return the resource that a failed test exhausted, by the disk's state and the kernel's messages in the logs;
    usually empty.
    """
    for folder, name in ((root, "the cell's disk"), (out, "the cell's folder /out")):
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < _FULL:
            return f"{name} of {space.f_blocks * space.f_frsize >> 20} MiB is full"
    texts = list(map(end_of, logs.glob("*.log")))
    for number in (errno.ENOSPC, errno.ENFILE, errno.EMFILE):  # the words of ENFILE begin with those of EMFILE
        words = os.strerror(number)
        if any(words.lower() in text.lower() for text in texts):
            return words[0].lower() + words[1:]
    return ""
