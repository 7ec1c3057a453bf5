"""The user's terminal, joined to one in a cell."""

from __future__ import annotations

import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from bkrules.cell.session import set_size

_CHUNK = 1 << 16


def size_of(terminal: int) -> tuple[int, int]:
    """Return how many rows and columns a terminal has."""
    columns, rows = os.get_terminal_size(terminal)
    return rows, columns


def relay(terminal: int, cell: int) -> None:
    """Pass on what is typed at `terminal` and what the cell's terminal prints, until nothing in the cell has that open."""
    with _raw(terminal), _following(terminal, cell):
        watched = [terminal, cell]
        while True:
            for descriptor in select.select(watched, [], [])[0]:
                try:
                    data = os.read(descriptor, _CHUNK)
                except OSError:  # as a terminal says that its other end is closed
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
    """Every key goes to the cell, Ctrl-C too."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSADRAIN)  # what was typed before is for the cell too
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _following(terminal: int, cell: int) -> Iterator[None]:
    """The cell's terminal has the size of the user's, also when that changes."""

    def changed(*_: object) -> None:
        set_size(cell, size_of(terminal))

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
