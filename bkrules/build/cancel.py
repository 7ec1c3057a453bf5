"""The end of an action before its time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancel:
    """Ends one action early. The runner of the action tells how; a demand that came before ends the action then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self.demanded = False

    def by(self, end: Callable[[], None]) -> None:
        """Call `end` when the action has to end."""
        with self._lock:
            self._end = end
            if self.demanded:
                end()

    def demand(self) -> None:
        """End the action."""
        with self._lock:
            if self._end and not self.demanded:
                self._end()
            self.demanded = True
