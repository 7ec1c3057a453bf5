"""Stop signals: the first Ctrl-C, SIGTERM or SIGHUP ends a build in order, the second at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from bkrules.errors import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = "\x1b[?25h"


def leave() -> None:
    """End the wait of the main thread by an exception."""
    raise KeyboardInterrupt


def go_on() -> None:
    """Ignore the signal, since bk is about to end anyway."""


class StopSignals:
    """A context in which the first stop signal calls `reaction`, in the main thread, between two of its steps.

    The second signal ends bk on the spot. Its cells end with it: their supervisors see the end of a pipe that only bk
    held open. The folder of the run stays, and the next run removes it.
    """

    def __init__(self, reaction: Callable[[], None]) -> None:
        self.reaction = reaction
        self.seen = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell, or by nohup
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen == 1:
            self.reaction()
            return
        line = "interrupted again: leaving at once\n"
        os.write(2, (_SHOW_CURSOR + line if sys.stderr.isatty() else line).encode())
        os._exit(INTERRUPTED)
