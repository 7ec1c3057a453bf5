"""The progress of a running build."""

from __future__ import annotations

import os
import time
from typing import IO, TYPE_CHECKING, NamedTuple

from bkrules.execution import doing
from bkrules.execution.result import Result
from bkrules.model.action import Action
from bkrules.model.status import Status
from bkrules.report.ci import current_ci
from bkrules.system.colours import painted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text


class Progress:
    """Shows progress: a live display on a terminal, and elsewhere one line for each finished action."""

    def __init__(self, stream: IO[str], *, live: bool, coloured: bool = False) -> None:
        self._stream, self._coloured = stream, coloured
        self.total = 0
        self._done = 0
        self._running: dict[str, _Running] = {}
        self._live: Live | None = None
        self._wants_live = live

    def start(self, action: Action, seconds: float | None = None) -> None:
        """Show that an action runs. `seconds` is how long it took when it last ran, if ever."""
        name, mnemonic = action.title, action.mnemonic
        self._running[action.id] = _Running(action, time.monotonic(), seconds)
        if self._wants_live and self._live is None:
            self._live = self._open_live()
        elif self._live is None and mnemonic != "TestCell":
            self.say(f"  {mnemonic} {name}")

    def end(self, result: Result) -> None:
        """Show the result of an action. Hits are only counted."""
        self._done += 1
        action = result.action
        self._running.pop(action.id, None)
        doing.ended(action.id)
        if result.cached or result.status == Status.NOT_RUN:
            return
        word = result.status if action.cell is None else result.status.upper()
        if action.cell is None and result.status == Status.PASSED:
            word = action.mnemonic
        reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
        self.say(f"[{self._done}/{self.total}] {word} {action.title} {result.seconds:.2f}s{reason}", whole=False)

    def close(self) -> None:
        """Remove the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str, *, whole: bool = True) -> None:
        """Print a line, from any thread; unless it must be `whole`, only what fits into one row of a live display."""
        line = current_ci().shown(line)
        shown = painted(line) if self._coloured else line
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(shown), no_wrap=not whole, overflow="fold" if whole else "ellipsis")
        else:
            print(shown, file=self._stream, flush=True)

    def _open_live(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(file=self._stream, no_color=not self._coloured),
            get_renderable=self._frame,
            refresh_per_second=10,
            transient=True,
        )
        live.start()
        return live

    def _frame(self) -> Text:
        from rich.text import Text

        now = time.monotonic()
        lines = [f"{self._done}/{self.total} actions, {len(self._running)} running"]
        lines += [f"  {running.at(now)}" for running in list(self._running.values())]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


class _Running(NamedTuple):
    """An action that runs since a time, and the seconds that it took before."""

    action: Action
    since: float
    seconds: float | None

    def at(self, now: float) -> str:
        """Return its row of the live display: for how long of how many seconds it has run, what it is, and what it does."""
        estimate = f" of about {self.seconds:.0f}s" if self.seconds and self.seconds >= 1 else ""
        kind = "" if self.action.cell is not None else f"{self.action.mnemonic} "
        words = doing.told(self.action.id)
        return f"{now - self.since:6.1f}s{estimate}  {kind}{self.action.title}{f' ({words})' if words else ''}"


def wants_live(stream: IO[str]) -> bool:
    """Return whether the stream can show a live display."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
