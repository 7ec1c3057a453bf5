"""The limits of a request, and the watch that enforces them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from bkrules.web.errors import TooSlow


@dataclass(frozen=True)
class Limits:
    """The limits of one request with its answer.

    `connect` is in seconds, for a connection with its TLS handshake. `idle` is in seconds: the longest wait for the
    whole head of the answer, and for each next byte of the body. `total` is in seconds, from the request to the last
    byte of the answer. `least` is in bytes: the least number that must pass in each `idle` seconds in which the client
    has waited for the body. With `least`, `total` is not needed: a body may take hours, but it cannot drip.
    """

    connect: float = 10.0
    idle: float = 60.0
    total: float = math.inf
    least: int = 0


class Watch:
    """The remaining time of one request."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._until = time.monotonic() + limits.total
        self._total = limits.total
        self._connect = limits.connect
        self.answering = False
        """Whether a byte of the answer has arrived."""
        self._head_until = math.inf
        self._waited = 0.0
        self._passed = 0

    def left(self) -> float:
        """Return the seconds until `total` is over. Raises TooSlow when it is."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooSlow(f"not there after {self._total:g} s")
        return left

    def patience(self) -> float:
        """Return the seconds for which to wait for the next byte. Raises TooSlow."""
        head = self._head_until - time.monotonic()
        if head <= 0:
            raise self.expired()
        return min(self.limits.idle, self.left(), head)

    def expect_head(self) -> None:
        """Record that the request was sent, and that the head of its answer comes next."""
        self._head_until = time.monotonic() + self.limits.idle

    def expect_body(self) -> None:
        """Record that the head has arrived."""
        self._head_until = math.inf

    def expired(self) -> TooSlow:
        """Return the error for a wait of `patience` without a byte."""
        if self._until <= time.monotonic():
            return TooSlow(f"not there after {self._total:g} s")
        return TooSlow(f"no {'byte' if self._head_until == math.inf else 'answer'} in {self.limits.idle:g} s")

    def passed(self, count: int, seconds: float) -> None:
        """Record bytes of a body, and how long the client has waited for them. Raises TooSlow when they are too few."""
        self._passed += count
        self._waited += seconds
        if self._waited < self.limits.idle:
            return
        if self._passed < self.limits.least:
            raise TooSlow(f"only {self._passed} bytes in {self._waited:.0f} s")
        self._waited, self._passed = 0.0, 0

    def hurry(self, seconds: float) -> None:
        """Limit the remaining time to `seconds`."""
        self._until = min(self._until, time.monotonic() + seconds)
