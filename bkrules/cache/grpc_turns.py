"""Which operations may hold a stream of an engine that has fewer threads than a client has operations."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

ROUND = 5.0
"""Seconds in which each operation has had a stream once, about."""
STALL = 15.0
"""Seconds without any progress after which the engine may have no thread for its workers."""
_SHORTEST = 0.05
_PAUSE = 1.0
_LEAST, _LEAST_BY_STALL = 2, 8


class Turns:
    """The streams of one engine, as many as it can hold. Safe for several threads.

    A server such as BuildGrid holds a thread for each stream, and workers need threads too: when streams have all of them, nothing
    moves. It refuses streams then, or there is no progress. From then on, fewer streams are open, and operations take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._open = 0
        self._most = math.inf
        self._changed = self._moved = time.monotonic()
        self._is_over = False

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Enter as soon as there is room for another stream, after `seconds` at the latest. The stream ends with the context."""
        turn = threading.Event()
        with self._lock:
            self._waiting.append(turn)
            self._admit()
        try:
            turn.wait(seconds)
            yield
        finally:
            with self._lock:
                if turn.is_set():
                    self._open -= 1
                else:
                    self._waiting.remove(turn)
                self._admit()

    @property
    def seconds(self) -> float:
        """How long a stream may be silent before it makes room for another one."""
        with self._lock:
            count = self._open + len(self._waiting)
            return max(ROUND * self._most / count, _SHORTEST) if count > self._most else math.inf

    def refused(self) -> None:
        """Note that the engine has no thread for a stream."""
        with self._lock:
            self._halve(_LEAST)

    def moved(self) -> None:
        """Note that an operation has begun or ended, or has another stage."""
        self._moved = time.monotonic()

    def check(self) -> None:
        """Have fewer streams if nothing has moved for long."""
        with self._lock:
            now = time.monotonic()
            if now - self._moved > STALL and self._open > _LEAST_BY_STALL:
                self._moved = now
                self._halve(_LEAST_BY_STALL)

    def end(self) -> None:
        """Let all enter, since the engine is not used any more."""
        with self._lock:
            self._is_over = True
            self._admit()

    def _halve(self, least: int) -> None:
        """Halve the limit, once for refusals that come together."""
        now = time.monotonic()
        if now - self._changed >= _PAUSE or self._most == math.inf:
            self._most, self._changed = max(min(self._most, self._open) // 2, least), now

    def _admit(self) -> None:
        while self._waiting and (self._open < self._most or self._is_over):
            self._open += 1
            self._waiting.popleft().set()
