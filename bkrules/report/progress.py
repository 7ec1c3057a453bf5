"""The progress of a running build."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING

from bkrules.execution.result import Result
from bkrules.model.status import Status

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text


class Progress:
    """Shows progress: a live display on a terminal, and elsewhere one line for each finished action."""

    def __init__(self, stream: IO[str], *, live: bool) -> None:
        self._stream = stream
        self.total = 0
        self._done = 0
        self._running: dict[str, float] = {}
        self._live: Live | None = None
        self._wants_live = live

    def start(self, name: str, mnemonic: str) -> None:
        """Show that an action runs."""
        self._running[name] = time.monotonic()
        if self._wants_live and self._live is None:
            self._live = self._open_live()
        elif self._live is None and mnemonic != "TestCell":
            self.say(f"  {mnemonic} {name}")

    def end(self, result: Result) -> None:
        """Show the result of an action. Hits are only counted."""
        self._done += 1
        action = result.action
        self._running.pop(action.title, None)
        if result.cached or result.status == Status.NOT_RUN:
            return
        word = result.status if action.cell is None else result.status.upper()
        if action.cell is None and result.status == Status.PASSED:
            word = action.mnemonic
        reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
        self.say(f"[{self._done}/{self.total}] {word} {action.title} {result.seconds:.2f}s{reason}")

    def close(self) -> None:
        """Remove the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Print a line, from any thread."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self._stream, flush=True)

    def _open_live(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(file=self._stream), get_renderable=self._frame, refresh_per_second=10, transient=True
        )
        live.start()
        return live

    def _frame(self) -> Text:
        from rich.text import Text

        now = time.monotonic()
        lines = [f"{self._done}/{self.total} actions, {len(self._running)} running"]
        lines += [f"  {now - since:6.1f}s  {name}" for name, since in list(self._running.items())]
        return Text("\n".join(lines))


def wants_live(stream: IO[str]) -> bool:
    """Return whether the stream can show a live display."""
    return stream.isatty() and sys.platform != "win32"
