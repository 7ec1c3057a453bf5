"""The circuit breaker of a remote cache.

A fault of the server or the network is never raised: it counts as a miss. bk prints one warning for the first fault of
a build, and stops using a server that keeps failing. With `required`, the first fault ends the build instead.

The storage of an engine has no substitute, so bk repeats a request to a server that has answered before, with growing pauses,
for `absence` seconds; then the server is given up.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import RemoteFailed

FAULTS = 5  # consecutive faults after which bk stops using the server
SLOW = 1.0
"""The seconds after which the answer to a question for a result is slow."""
MOST_SLOW = 15.0
"""The limit of the seconds in which bk waits for nothing but slow answers."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""The seconds before a request is repeated for the first time, and at most; each pause is twice the one before, about."""
_OF_CACHE = "the build continues, and counts this as a miss"
_OF_STORAGE = "the engine cannot run actions without it"
READ, WRITE = "read", "write"
BOTH = (READ, WRITE)

_T = TypeVar("_T")
Warn = Callable[[str], None]


class Fault(Exception):
    """A fault instead of an answer. `final` holds the sides, READ or WRITE, that are not worth repeating with this server.

    `passes`: the server or the network gave no answer, so a later request may have one. `lacks`: the answer is that the
    server lacks a blob.
    """

    def __init__(self, what: str, *, final: Collection[str] = (), passes: bool = False, lacks: bool = False) -> None:
        super().__init__(what)
        self.final = final
        self.passes, self.lacks = passes, lacks


class Breaker:
    """The faults of one server. Safe for several threads. `warn` is called with the first fault only."""

    def __init__(self, options: RemoteOptions, warn: Warn) -> None:
        self._options = options
        self._warn = warn
        self._lock = threading.Lock()
        self._streaks = dict.fromkeys(BOTH, 0)
        self._away: set[str] = set()
        self._fault = ""
        self._slow_seconds = self._slow_until = 0.0
        self._has_answered = False
        self._over = threading.Event()

    @property
    def readable(self) -> bool:
        """Whether bk still reads from the server."""
        return READ not in self._away

    @property
    def writable(self) -> bool:
        """Whether bk still writes to the server."""
        return self._options.upload and WRITE not in self._away

    @property
    def fault(self) -> str:
        """The first fault of the build, with the address of the server; empty for none."""
        return self._fault

    @property
    def answers(self) -> bool:
        """Whether the server has answered a request."""
        return self._has_answered

    def attempt(self, side: str, what: str, call: Callable[[], _T], otherwise: _T, *, ends_streak: bool = True) -> _T:
        """Return the answer of `call`, or `otherwise` after a fault, or when bk has stopped using the server.

        An answer ends the streak of consecutive faults, unless only its parts can tell whether the server works. Raises
        RemoteFailed when the cache is required.
        """
        began, pauses = time.monotonic(), 0
        while True:
            if side in self._away:
                return otherwise
            try:
                answer = call()
                break
            except (Fault, OSError, ValueError) as error:
                fault = error if isinstance(error, Fault) else Fault(str(error))
            if not (fault.passes and self._may_repeat(began, pauses)):
                self._give_up(side, what, fault, time.monotonic() - began if pauses else 0)
                return otherwise
            pauses += 1
        self.answered()
        if ends_streak:
            with self._lock:
                self._streaks[side] = 0
        return answer

    def _may_repeat(self, began: float, pauses: int) -> bool:
        """Wait before a request is repeated. Return whether it may be."""
        if not (self._options.absence and self._has_answered) or self._over.is_set():
            return False
        wait = min(FIRST_PAUSE * 2**pauses, LONGEST_PAUSE) * random.uniform(0.5, 1.5)
        return time.monotonic() - began + wait < self._options.absence and not self._over.wait(wait)

    def _give_up(self, side: str, what: str, fault: Fault, seconds: float) -> None:
        """Record the fault of a request that is not repeated any more; it was for so many seconds. Raises as `note`."""
        if self._over.is_set():
            return
        text, final = f"{what}: {fault}", fault.final
        if seconds:
            text, final = f"{text}, for {seconds:.0f} s", BOTH
        self.note(side, Fault(text, final=final, lacks=fault.lacks))

    def answered(self) -> None:
        """Note that the server is there."""
        self._has_answered = True

    def repeat_no_more(self) -> None:
        """Repeat no request that has no answer, since the build ends."""
        self._over.set()

    def look_up(self, call: Callable[[], _T | None]) -> _T | None:
        """Return the answer of `call` to a question for a result, or None when bk asks no more.

        A server whose answers are right but slow would cost that time for each action. So bk asks for no more results when it has
        waited too long without one quick answer, unless the cache is required. It still reads blobs.
        """
        if self._slow_seconds > MOST_SLOW and not self._options.required:
            return None
        began = time.monotonic()
        answer = call()
        self._time(began, time.monotonic())
        return answer

    def _time(self, began: float, ended: float) -> None:
        """Add up the time of slow answers. Time in which several questions wait counts once."""
        with self._lock:
            before = self._slow_seconds
            if ended - began <= SLOW:
                self._slow_seconds = 0.0
                return
            self._slow_seconds += max(ended - max(began, self._slow_until), 0.0)
            self._slow_until = max(ended, self._slow_until)
            is_over = before <= MOST_SLOW < self._slow_seconds
        if is_over and not self._options.required:
            text = f"an answer takes {ended - began:.1f} s; bk asks it for no more results in this build"
            self._warn(f"warning: remote cache {self._options.address}: {text}")

    def note(self, side: str, fault: Fault) -> None:
        """Record a fault. Raises RemoteFailed when the cache is required."""
        with self._lock:
            self._streaks[side] += 1
            is_over = self._streaks[side] >= FAULTS and not self._options.absence
            self._away.update(fault.final or ([side] if is_over else []))
            first = not self._fault
            self._fault = self._fault or f"remote cache {self._options.address}: {fault}"
        if self._options.required:
            reason = "absent-blob" if fault.lacks else "remote-cache"
            raise RemoteFailed(reason, self._fault, hint="without --remote_required, bk continues without it")
        if first:
            then = _OF_STORAGE if self._options.absence else _OF_CACHE
            self._warn(f"warning: {self._fault}; {then}")


class Breakable:
    """A client behind a breaker."""

    def __init__(self, options: RemoteOptions, warn: Warn) -> None:
        self._breaker = Breaker(options, warn)

    @property
    def readable(self) -> bool:
        """Whether bk still reads from the server."""
        return self._breaker.readable

    @property
    def writable(self) -> bool:
        """Whether bk still writes to the server."""
        return self._breaker.writable

    @property
    def fault(self) -> str:
        """The first fault of the build, with the address of the server; empty for none."""
        return self._breaker.fault

    @property
    def answers(self) -> bool:
        """Whether the server has answered a request."""
        return self._breaker.answers

    def repeat_no_more(self) -> None:
        """Repeat no request that has no answer, since the build ends."""
        self._breaker.repeat_no_more()

    def lied(self, what: str) -> None:
        """Record a fault in the content of an answer. Raises RemoteFailed when the cache is required."""
        self._breaker.note(READ, Fault(what))
