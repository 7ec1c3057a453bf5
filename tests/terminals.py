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
from collections.abc import Iterator, Mapping, Sequence
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

    def until(self, text: str, seconds: float = 10) -> str:
        """Return what the program shows up to this text, after what an earlier call returned. Fails after that many seconds."""
        deadline = time.monotonic() + seconds
        while (found := self.shown.find(text, self._place)) < 0:
            ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} within {seconds:g} s in {self.shown[self._place :]!r}"
            data = self._read()
            assert data, f"no {text!r} before the end in {self.shown[self._place :]!r}"
        before, self._place = self._place, found + len(text)
        return self.shown[before : self._place]

    def end(self) -> int:
        """Read to the end of the program. Return its exit code."""
        while self._read():
            pass
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


def lines_on_screen(shown: str, columns: int = 80) -> Iterator[str]:
    """Yield the rows that a text takes on a terminal that wraps long lines, without colours."""
    for line in CONTROL.sub("", shown).split("\n"):
        yield from (line[place : place + columns] for place in range(0, max(1, len(line)), columns))
