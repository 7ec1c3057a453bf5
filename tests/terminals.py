"""A program on a pseudo-terminal, as a user sees it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\a]*\a|\x1b[=>()][0B]?|\r")
"""Sequences that move the cursor, or change colours and modes."""


class Terminal:
    """A program on a terminal of so many rows and columns. The program ends with the terminal, at the latest at its close."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], rows: int = 30, columns: int = 80
    ) -> None:
        self.shown = ""
        self._place = 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.chdir(folder)
                os.execve(command[0], list(command), dict(environment))
            os._exit(127)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self._terminal)

    def type(self, text: str) -> None:
        """Type keys."""
        os.write(self._terminal, text.encode())

    def until(self, text: str, seconds: float = 60) -> str:
        """Return what the program shows up to this text, after what an earlier call returned. Fails after that many seconds."""
        deadline = time.monotonic() + seconds
        while (found := self.shown.find(text, self._place)) < 0:
            ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} within {seconds:g} s in {self.shown[self._place :]!r}"
            data = self._read()
            assert data, f"no {text!r} before the end in {self.shown[self._place :]!r}"
        before, self._place = self._place, found + len(text)
        return self.shown[before : self._place]

    def end(self, seconds: float = 60) -> int:
        """Read to the end of the program. Return its exit code. Fails after that many seconds."""
        deadline = time.monotonic() + seconds
        while select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))[0] and self._read():
            pass
        assert time.monotonic() < deadline, f"no end within {seconds:g} s in {self.shown!r}"
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> str:
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # which is how a terminal tells that its last user has gone
            data = b""
        self.shown += data.decode(errors="replace")
        return data.decode(errors="replace")


_STEP = re.compile(r"\x1b\[([0-9;?]*)([a-zA-Z])|(\r)|(\n)|([^\x1b\r\n]+)")


def rows(shown: str, columns: int = 80) -> list[str]:
    """Return all rows of a terminal, those that have left it at its top too, after a program has shown this."""
    found: list[str] = [""]
    row = column = 0
    for match in _STEP.finditer(shown):
        values, letter, back, down, text = match.groups()
        number = int(values) if values and values.isdigit() else 1
        if back:
            column = 0
        elif down:
            row += 1
        elif letter == "A":
            row = max(0, row - number)
        elif letter == "K":
            found[row] = "" if values == "2" else found[row][:column]
        for part in [text[place : place + 1] for place in range(len(text or ""))]:
            if column == columns:
                row, column = row + 1, 0
            found += [""] * (row + 1 - len(found))
            found[row] = f"{found[row][:column].ljust(column)}{part}{found[row][column + 1 :]}"
            column += 1
        found += [""] * (row + 1 - len(found))
    while found and not found[-1].strip():
        found.pop()
    return [line.rstrip() for line in found]
