"""The phases of a build: loading, analysis, and each kind of action that ran."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOADING = "loading"
ANALYSIS = "analysis"


class Phases:
    """The seconds of the phases of one build, measured in all of its threads.

    A phase lasts while anything of it is in progress: two cells that run at once for a second are one second.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Return a context that is part of a phase."""
        self._begin(phase)
        try:
            yield
        finally:
            self._end(phase)

    @contextmanager
    def outside(self, phase: str) -> Iterator[None]:
        """Return a context, within one that is part of a phase, that is no part of it."""
        self._end(phase)
        try:
            yield
        finally:
            self._begin(phase)

    def seconds(self) -> tuple[tuple[str, float], ...]:
        """Return the seconds of each phase that has ended, in the order in which they began."""
        with self._lock:
            return tuple(self._seconds.items())

    def _begin(self, phase: str) -> None:
        with self._lock:
            if not self._running.get(phase):
                self._began[phase] = time.monotonic()
                self._seconds.setdefault(phase, 0.0)
            self._running[phase] = self._running.get(phase, 0) + 1

    def _end(self, phase: str) -> None:
        with self._lock:
            self._running[phase] -= 1
            if not self._running[phase]:
                self._seconds[phase] += time.monotonic() - self._began[phase]
