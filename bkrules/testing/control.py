"""What a test has done to the daemons of its cell: it asks, and the cell's first process, whose children they are, does it."""

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
    """A daemon did not end, or was not ready again, or there is none of that name."""


@dataclass(frozen=True)
class Control:
    """A test's end: the names of the daemons that there are, and a channel to the process that keeps them."""

    daemons: Sequence[str]
    channel: socket.socket
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def stop(self, name: str, number: signal.Signals) -> None:
        """Send a daemon a signal, and return when it has ended. Raises ControlFailed."""
        self._ask({"stop": name, "signal": int(number)})

    def start(self, name: str) -> None:
        """Start a daemon that was stopped, and return when it is ready. Raises ControlFailed."""
        self._ask({"start": name})

    def _ask(self, question: dict[str, object]) -> None:
        with self._lock:
            send(self.channel, question)
            answer, _ = receive(self.channel)
        assert answer is not None, "the cell's first process has ended"
        if answer["error"]:
            raise ControlFailed(answer["error"])


def answer(channel: socket.socket, daemons: Daemons, patience: float) -> bool:
    """Do what a test asks for on the channel, for at most `patience` seconds; whether it may ask for more."""
    try:
        question, _ = receive(channel)
        if question is None:
            return False
        send(channel, {"error": _done(question, daemons, patience)})
    except (BrokenPipeError, ConnectionResetError):  # it has ended meanwhile
        return False
    return True


def _done(question: Mapping[str, Any], daemons: Daemons, patience: float) -> str:
    """Do it; what went wrong."""
    try:
        if "stop" in question:
            daemons.stop(question["stop"], question["signal"], patience)
        else:
            daemons.restart(question["start"], patience)
    except DaemonError as problem:
        return str(problem)
    return ""
