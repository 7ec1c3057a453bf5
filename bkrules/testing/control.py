"""Control of a cell's daemons by its test: the cell's first process, their parent, carries out the test's requests."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bkrules.plugin.daemon import DaemonError, Daemons
from bkrules.sandbox.ipc import receive, send


class ControlFailed(AssertionError):
    """A daemon did not end, or was not ready again, or does not exist."""


@dataclass(frozen=True)
class Control:
    """The test's end: the names of the daemons, and a channel to their parent."""

    daemons: Sequence[str]
    channel: socket.socket
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def stop(self, name: str, number: signal.Signals) -> None:
        """Send a daemon a signal, and wait for its end. Raises ControlFailed."""
        self._ask({"stop": name, "signal": int(number)})

    def start(self, name: str) -> None:
        """Start a stopped daemon, and wait until it is ready. Raises ControlFailed."""
        self._ask({"start": name})

    def _ask(self, question: dict[str, object]) -> None:
        with self._lock:
            send(self.channel, question)
            answer, _ = receive(self.channel)
        assert answer is not None, "the cell's first process has ended"
        if answer["error"]:
            raise ControlFailed(answer["error"])


def answer(channel: socket.socket, daemons: Daemons, patience: float) -> bool:
    """Carry out a request of a test on the channel, within `patience` seconds. Return whether more may follow."""
    try:
        question, _ = receive(channel)
        if question is None:
            return False
        send(channel, {"error": _done(question, daemons, patience)})
    except (BrokenPipeError, ConnectionResetError):  # the test has ended meanwhile
        return False
    return True


def _done(question: Mapping[str, Any], daemons: Daemons, patience: float) -> str:
    """Carry out a request. Return the error, if any."""
    try:
        if "stop" in question:
            daemons.stop(question["stop"], question["signal"], patience)
        else:
            daemons.restart(question["start"], patience)
    except DaemonError as problem:
        return str(problem)
    return ""
