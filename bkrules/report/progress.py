"""The progress of a running build."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from bkrules.execution import doing
from bkrules.model.status import Status
from bkrules.report.ci import current_ci
from bkrules.system.colours import painted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from bkrules.execution.result import Result
    from bkrules.model.action import Action

SILENCE = 30.0
"""The seconds without a line after which a log has one about what runs."""
_LONGEST_SILENCE = 300.0
_FRAME = 0.2
"""The seconds for which a row of a terminal stays as it is."""
_NAMED = 3
"""The limit of running actions that such a line names."""


class Silence:
    """Calls `speak` in a thread when nobody has spoken for so many seconds, and ever more seldom while only it speaks."""

    def __init__(self, speak: Callable[[], None], seconds: float = SILENCE) -> None:
        self._speak, self._seconds = speak, seconds
        self._last = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="silence", daemon=True).start()

    def broken(self) -> None:
        """Note that somebody has spoken."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Say nothing more."""
        self._over.set()

    def _watch(self) -> None:
        last, seconds = self._last, self._seconds
        while not self._over.wait(max(0.0, last + seconds - time.monotonic())):
            if self._last != last:
                last, seconds = self._last, self._seconds
            else:
                self._speak()
                last = self._last = time.monotonic()
                seconds = min(2 * seconds, max(_LONGEST_SILENCE, self._seconds))


@contextmanager
def shown(stream: IO[str], words: Callable[[], str], silence: float = SILENCE) -> Iterator[None]:
    """Show what happens as long as the context lasts: in one row of a terminal, and in a log by a line after so much `silence`."""
    if not wants_live(stream):
        lines = Silence(lambda: print(words(), file=stream, flush=True), silence)
        try:
            yield
        finally:
            lines.end()
        return
    over = threading.Event()

    def draw() -> None:
        while not over.wait(_FRAME):
            width = os.get_terminal_size(stream.fileno()).columns
            print(f"\r{words()[: width - 1]}\x1b[K", end="", file=stream, flush=True)

    thread = threading.Thread(target=draw, name="shown", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        print("\r\x1b[K", end="", file=stream, flush=True)


class Progress:
    """Shows progress: a live display on a terminal, and elsewhere one line for each finished action.

    Elsewhere there is also a line about what runs after so many seconds of `silence`.
    """

    def __init__(self, stream: IO[str], *, live: bool, coloured: bool = False, silence: float = SILENCE) -> None:
        self._stream, self._coloured = stream, coloured
        self._seconds_of_silence, self._lock = silence, threading.Lock()
        self._silence: Silence | None = None
        self.total = 0
        self._done = 0
        self._running: dict[str, _Running] = {}
        self._live: Live | None = None
        self._wants_live = live

    def start(self, action: Action, seconds: float | None = None, title: str = "") -> None:
        """Show that an action runs, by its own title or another. `seconds` is how long it took when it last ran, if ever."""
        name, mnemonic = title or action.title, action.mnemonic
        self._running[action.id] = _Running(action, time.monotonic(), seconds, name)
        with self._lock:
            if self._wants_live and self._live is None:
                self._live = self._open_live()
            elif self._live is None and self._silence is None:
                self._silence = Silence(self._say_what_runs, self._seconds_of_silence)
        if self._live is None and mnemonic != "TestCell":
            self.say(f"  {mnemonic} {name}")

    def end(self, result: Result) -> None:
        """Show the result of an action. Hits are only counted."""
        action = result.action
        self.count(action)
        if result.cached or result.status == Status.NOT_RUN:
            return
        word = result.status if action.cell is None else result.status.upper()
        if action.cell is None and result.status == Status.PASSED:
            word = action.mnemonic
        reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
        self.say(f"[{self._done}/{self.total}] {word} {action.title} {result.seconds:.2f}s{reason}", whole=False)

    def count(self, action: Action) -> None:
        """Count an action that has ended, without a line."""
        self._done += 1
        self._running.pop(action.id, None)
        doing.ended(action.id)

    def close(self) -> None:
        """Remove the live display, and say nothing more about what runs."""
        if self._silence is not None:
            self._silence.end()
            self._silence = None
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
            if self._silence is not None:
                self._silence.broken()

    def _say_what_runs(self) -> None:
        now = time.monotonic()
        rows = [running.told(now) for running in list(self._running.values())]
        more = f"; and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        if rows:
            with suppress(OSError):  # the next line of the build tells that nobody reads
                self.say(f"[{self._done}/{self.total}] running: {'; '.join(rows[:_NAMED])}{more}")

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
    title: str

    def at(self, now: float) -> str:
        """Return its row of the live display: for how long of how many seconds it has run, what it is, and what it does."""
        return f"{now - self.since:6.1f}s{self._estimate}  {self._name}"

    def told(self, now: float) -> str:
        """Return the same for a line of a log: what it is, what it does, and for how long of how many seconds it has run."""
        return f"{self._name} {now - self.since:.0f}s{self._estimate}"

    @property
    def _estimate(self) -> str:
        return f" of about {self.seconds:.0f}s" if self.seconds and self.seconds >= 1 else ""

    @property
    def _name(self) -> str:
        kind = "" if self.action.cell is not None else f"{self.action.mnemonic} "
        words = doing.told(self.action.id)
        return f"{kind}{self.title}{f' ({words})' if words else ''}"


def wants_live(stream: IO[str]) -> bool:
    """Return whether the stream can show a live display."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
