"""The record of the requests that a cell makes to its mirror, and whether the next one meets the cell's faults.

A cell reads its record, and begins or ends its faults, at paths that the proxy answers itself.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

from bkrules.mirror.faults import MirrorFaults

PROXY_PATH = "/_bk/"
COUNTS = f"{PROXY_PATH}requests"
BEGIN_FAULTS, END_FAULTS = f"{PROXY_PATH}faults/begin", f"{PROXY_PATH}faults/end"
MOST_RECORD = 1 << 25
"""The limit in bytes of the record of one cell."""

_RECORD_OVERHEAD = 256
_MOST_REASONS = 16


@dataclass(frozen=True)
class MirrorRequest:
    """One request that a cell made to its mirror; `path` is without its query, `body_bytes` the length of the answer's body.

    For an answer that declares no length, and for one whose connection ended within its body, `body_bytes` counts the bytes that
    have passed. `status` is 0 when the connection ended before an answer.
    """

    method: str
    path: str
    status: int
    body_bytes: int


@dataclass
class Counted:
    """A request in the record. `declared` is the length of the answer's body, None while only `passed` is known.

    `at` is when the answer began, in seconds since the epoch.
    """

    method: str
    path: str
    status: int
    declared: int | None = 0
    passed: int = 0
    at: float = field(default_factory=time.time)

    def request(self) -> MirrorRequest:
        """Return the request as a test sees it."""
        size = self.passed if self.declared is None else self.declared
        return MirrorRequest(self.method, self.path, self.status, size)


@dataclass
class CellMirror:
    """The mirror of one cell. `busy_until` is the time at which a slowed mirror may send again.

    `uncounted` are the reasons why `record` is incomplete. `sides` counts the sides of its connections, and `crowded` is why
    one was refused, if there were too many. `reached`: a request has met the faults.
    """

    target: str
    listener: socket.socket
    faults: MirrorFaults | None = None
    record: list[Counted] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    faulty: bool = False
    met: int = 0
    busy_until: float = 0.0
    sides: int = 0
    crowded: str = ""
    reached: bool = False
    _recorded: int = 0

    def add(self, method: str, path: str, status: int, declared: int | None = 0) -> Counted:
        """Record a request, and return its record. Beyond a limit, requests of a cell are no longer counted."""
        request = Counted(method, path, status, declared)
        self._recorded += _RECORD_OVERHEAD + len(path)
        if self._recorded <= MOST_RECORD:
            self.record.append(request)
        else:
            self.doubt(f"the record of {len(self.record)} requests has reached its limit of {MOST_RECORD >> 20} MiB")
        return request

    def doubt(self, reason: str) -> None:
        """Record why a request is not counted."""
        if reason not in self.uncounted and len(self.uncounted) < _MOST_REASONS:
            self.uncounted.append(reason)

    def meets(self, path: str) -> MirrorFaults | None:
        """Return the faults that a request for this path meets."""
        faults = self.faults
        if faults is None or not self.faulty or self.spent() or not faults.concern(path):
            return None
        self.reached = True
        return faults

    def spent(self) -> bool:
        """Return whether as many requests have met the faults as `times` allows."""
        return self.faults is not None and 0 < self.faults.times <= self.met

    def begin(self) -> None:
        """Begin the faults, and count those that are met from now on."""
        self.faulty, self.met = True, 0
