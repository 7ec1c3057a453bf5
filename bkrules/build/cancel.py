"""The end of an action before its time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancel:
    """Ends one action early. Each part of its run tells how; a demand that came before ends that part then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self.demanded = False

    def by(self, end: Callable[[], None]) -> None:
        """Call `end` too when the action has to end."""
        with self._lock:
            self._ends.append(end)
            if self.demanded:
                end()

    def demand(self) -> None:
        """End the action."""
        with self._lock:
            if not self.demanded:
                self.demanded = True
                for end in self._ends:
                    end()
