"""The job slot of an action, with its share of the pools, which it releases while it waits for another process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from bkrules.errors import Interrupted


@dataclass(frozen=True, slots=True)
class Paused:
    """A message to the scheduler: an action has released its slot or, with `back`, wants it again; with `here`, one of this
    machine, in place of one elsewhere.
    """

    name: str
    back: bool = False
    here: bool = False


class JobSlot:
    """The slot of the action `name`. `tell` sends to the scheduler; `over` is set when nothing may start or continue any more."""

    def __init__(self, name: str, tell: Callable[[Paused], None], over: threading.Event) -> None:
        self.name = name
        self.over = over
        self.is_released = False
        self._tell = tell
        self._grants: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def release(self) -> None:
        """Let other actions have the slot, unless they have it. Call this and `reacquire` in the thread that runs the action."""
        if not self.is_released:
            self.is_released = True
            self._tell(Paused(self.name))

    def reacquire(self, *, here: bool = False) -> None:
        """Wait for the slot; with `here`, for one of this machine. Raises Interrupted when the build has ended meanwhile."""
        self._tell(Paused(self.name, back=True, here=here))
        if not self._grants.get():
            raise Interrupted("interrupted", f"{self.name} does not continue")
        self.is_released = False

    def grant(self, *, granted: bool = True) -> None:
        """Let the action continue, or end it when it next waits for its slot. Call this in the scheduler."""
        self._grants.put(granted)


class Unscheduled(JobSlot):
    """The slot of an action that no scheduler runs: it is always free."""

    def __init__(self, name: str) -> None:
        super().__init__(name, lambda paused: self.grant() if paused.back else None, threading.Event())
