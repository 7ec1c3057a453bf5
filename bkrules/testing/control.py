"""Control of a cell's daemons by its test: the cell's first process, their parent, carries out the test's requests."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from bkrules.model.parameters import variable_of
from bkrules.model.wire import Wire, one_of
from bkrules.plugin.daemon import DaemonError, Daemons
from bkrules.sandbox.ipc import receive, send

_LONGEST = 1 << 16
"""Bytes of a question of a test."""


def _is_signal(number: int) -> bool:
    return number in signal.valid_signals()


@dataclass(frozen=True)
class StopDaemon(Wire):
    """Send a daemon a signal, and wait until it has ended."""

    TAG: ClassVar = ("ask", "stop")

    name: str
    number: Annotated[int, _is_signal]


@dataclass(frozen=True)
class StartDaemon(Wire):
    """Start a daemon again, and wait until it is ready."""

    TAG: ClassVar = ("ask", "start")

    name: str


@dataclass(frozen=True)
class StartWorker(Wire):
    """Start an extra worker, by its label or id, under a name, and wait until it is ready."""

    TAG: ClassVar = ("ask", "worker")

    worker: str
    name: str


@dataclass(frozen=True)
class HoldFailure(Wire):
    """The test has failed: let a user look at the cell before it continues, if one wants to."""

    TAG: ClassVar = ("ask", "failure")

    reason: str


@dataclass(frozen=True, kw_only=True)
class StartedWorker(Wire):
    """An extra worker that is ready, as a test reaches it: the folders of its binaries and its state, the fields of its backend.

    `worker` is its id, `name` what it is called in this cell, `daemons` are their names without that.
    """

    name: str
    worker: str
    tools: str
    state: str
    daemons: tuple[str, ...]
    backend: Mapping[str, object]

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which a program finds the worker."""
        variable = f"BK_EXTRA_WORKER_{variable_of(self.name)}"
        return {
            f"{variable}_HOST": str(self.backend["address"]),
            f"{variable}_SNAPSHOTTER": str(self.backend["snapshotter"]),
            f"{variable}_TOOLS": self.tools,
        }


@dataclass(frozen=True)
class Answer(Wire):
    """The answer to a question: an error, or an empty text; and the worker that it has started, if any."""

    error: str = ""
    started: StartedWorker | None = None


class ControlFailed(AssertionError):
    """A daemon did not end, or was not ready again, or does not exist."""


@dataclass(frozen=True)
class Control:
    """The test's end: the names of the daemons, and a channel to their parent."""

    daemons: Sequence[str]
    channel: socket.socket
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def stop(self, name: str, number: signal.Signals) -> None:
        """Send a daemon a signal, and return when it has ended. Raises ControlFailed."""
        __tracebackhide__ = True
        self._ask(StopDaemon(name, int(number)))

    def start(self, name: str) -> None:
        """Start a stopped daemon, and wait until it is ready. Raises ControlFailed."""
        __tracebackhide__ = True
        self._ask(StartDaemon(name))

    def start_worker(self, worker: str, name: str) -> StartedWorker:
        """Start an extra worker, and wait until it is ready. Raises ControlFailed."""
        __tracebackhide__ = True
        started = self._ask(StartWorker(worker, name)).started
        assert started is not None, "the answer has no worker"
        return started

    def hold(self, reason: str) -> None:
        """Report that the test has failed, and wait until a user has looked at the cell, if one wants to."""
        self._ask(HoldFailure(reason))

    def _ask(self, question: Wire) -> Answer:
        __tracebackhide__ = True
        with self._lock:
            send(self.channel, question)
            answer, _ = receive(self.channel)
        assert answer is not None, "the cell's first process has ended"
        found = Answer.parse(answer)
        if found.error:
            raise ControlFailed(found.error)
        return found


def answer(channel: socket.socket, daemons: Daemons, patience: float) -> bool:
    """Carry out a request of a test on the channel, within `patience` seconds. Return whether more may follow."""
    try:
        try:
            question, descriptors = receive(channel, _LONGEST)
            if question is None:
                return False
            for descriptor in descriptors:
                os.close(descriptor)
            told = _done(one_of(question, StopDaemon, StartDaemon, StartWorker, HoldFailure), daemons, patience)
        except ValueError as problem:  # the test has found the channel, and speaks on it itself
            told = Answer(f"this is not a question: {problem}")
        send(channel, told)
    except (BrokenPipeError, ConnectionResetError):  # it has ended meanwhile
        return False
    return True


def _done(question: Wire, daemons: Daemons, patience: float) -> Answer:
    """Carry out a request. Return the answer."""
    try:
        if isinstance(question, StopDaemon):
            daemons.stop(question.name, question.number, patience)
        elif isinstance(question, StartDaemon):
            daemons.restart(question.name, patience)
        elif isinstance(question, HoldFailure):
            daemons.hold(question.reason)
        elif isinstance(question, StartWorker):
            return Answer(started=daemons.start_worker(question.worker, question.name, patience))
    except DaemonError as problem:
        return Answer(str(problem))
    return Answer()
