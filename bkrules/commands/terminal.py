"""The user's terminal, connected to one in a cell."""

from __future__ import annotations

import os
import signal
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bkrules.cell.protocol import Command
from bkrules.cell.session import set_size
from bkrules.system.waiting import readable

if TYPE_CHECKING:
    from bkrules.runners.open_cell import OpenCell

_CHUNK = 1 << 16


def size_of(terminal: int) -> tuple[int, int]:
    """Return the number of rows and columns of a terminal."""
    columns, rows = os.get_terminal_size(terminal)
    return rows, columns


def attach(cell: OpenCell, command: Command, terminal: int = 0) -> None:
    """Run a command in a cell on a new terminal there, connected to the user's, until no process there has it open."""
    near, far = socket.socketpair()
    with near:
        with far:
            environment = {"TERM": os.environ.get("TERM", "dumb"), **command.environment}
            cell.ask(replace(command, environment=environment, size=size_of(terminal)), far.fileno())
        _, (other,), _, _ = socket.recv_fds(near, 64, 1)
    try:
        relay(terminal, other)
    finally:
        os.close(other)


def relay(terminal: int, cell: int) -> None:
    """Pass typed bytes to the cell and the output of its terminal back, until no process in the cell has that open."""
    with _raw(terminal), _following(terminal, cell):
        watched = [terminal, cell]
        while True:
            for descriptor in readable(watched):
                try:
                    data = os.read(descriptor, _CHUNK)
                except OSError:  # the error with which a terminal reports that its other end is closed
                    data = b""
                if data:
                    _write(cell if descriptor == terminal else terminal, data)
                elif descriptor == cell:
                    return
                else:
                    watched.remove(terminal)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Pass every key to the cell, including Ctrl-C."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSADRAIN)  # bytes typed before are for the cell too
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _following(terminal: int, cell: int) -> Iterator[None]:
    """Give the cell's terminal the size of the user's, also when that changes."""

    def changed(*_: object) -> None:
        set_size(cell, size_of(terminal))

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
