"""How long a request may take, and who watches it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from bkrules.web.errors import TooSlow


@dataclass(frozen=True)
class Limits:
    """The limits of one request with its answer.

    `connect` is in seconds, for a connection with its TLS. `idle` is in seconds, the longest wait for the next byte. `total` is
    in seconds, from the request to the last byte of the answer. `least` is in bytes: what must pass in each `idle` seconds that
    the client has waited for the body. With it, no `total` is needed: a body may take hours, but it cannot drip.
    """

    connect: float = 10.0
    idle: float = 60.0
    total: float = math.inf
    least: int = 0


class Watch:
    """The time that is left of one request."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._until = time.monotonic() + limits.total
        self._total = limits.total
        self._connect = limits.connect
        self.answering = False
        self._waited = 0.0
        self._passed = 0

    def left(self) -> float:
        """Return the seconds until the total is over. Raises TooSlow when there are none."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooSlow(f"not there after {self._total:g} s")
        return left

    def patience(self) -> float:
        """Return how long the next byte may take, in seconds. Raises TooSlow."""
        return min(self.limits.idle, self.left())

    def expired(self) -> TooSlow:
        """Return the error for a wait of `patience` that has ended without a byte."""
        if self._until <= time.monotonic():
            return TooSlow(f"not there after {self._total:g} s")
        return TooSlow(f"no {'byte' if self.answering else 'answer'} in {self.limits.idle:g} s")

    def passed(self, count: int, seconds: float) -> None:
        """Note bytes of a body, and how long the client has waited for them. Raises TooSlow when they are too few."""
        self._passed += count
        self._waited += seconds
        if self._waited < self.limits.idle:
            return
        if self._passed < self.limits.least:
            raise TooSlow(f"only {self._passed} bytes in {self._waited:.0f} s")
        self._waited, self._passed = 0.0, 0

    def hurry(self, seconds: float) -> None:
        """Leave at most that many seconds from now."""
        self._until = min(self._until, time.monotonic() + seconds)
