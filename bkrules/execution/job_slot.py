"""An action's turn: its job slot and its share of the pools, which it leaves to others while it waits for somebody else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from bkrules.errors import Interrupted


@dataclass(frozen=True, slots=True)
class Paused:
    """What a scheduler is told when an action leaves its turn, or, with `back`, when it wants it again."""

    name: str
    back: bool = False


class Turn:
    """The turn of the action `name`. `tell` reaches the scheduler; `over` is set when nothing starts or goes on any more."""

    def __init__(self, name: str, tell: Callable[[Paused], None], over: threading.Event) -> None:
        self.name = name
        self.over = over
        self.is_left = False
        self._tell = tell
        self._grants: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def leave(self) -> None:
        """Let others have it. Called by the thread that runs the action, as is `take_again`."""
        self.is_left = True
        self._tell(Paused(self.name))

    def take_again(self) -> None:
        """Wait until there is room for the action again. Raises Interrupted when there will be none."""
        self._tell(Paused(self.name, back=True))
        if not self._grants.get():
            raise Interrupted("interrupted", f"{self.name} does not go on")
        self.is_left = False

    def grant(self, *, granted: bool = True) -> None:
        """Let the action go on, or end it when it next asks. Called by the scheduler."""
        self._grants.put(granted)


class Unscheduled(Turn):
    """The turn of an action that nobody schedules: there is always room for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, lambda paused: self.grant() if paused.back else None, threading.Event())
