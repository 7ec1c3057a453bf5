"""What passes the mirror's door: the heads of requests and answers, the record of them, and which of them meet faults."""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from bkrules.mirror_faults import NEVER, MirrorFaults

HEAD_END = b"\r\n\r\n"
OWN = "/_bk/"
COUNTS = f"{OWN}requests"
BEGIN_FAULTS, END_FAULTS = f"{OWN}faults/begin", f"{OWN}faults/end"


@dataclass(frozen=True)
class MirrorRequest:
    """One request that a cell made to its mirror; `path` is without its query, `body_bytes` the length of the answer's body.

    `status` is 0 where a fault of the mirror reset the connection before an answer.
    """

    method: str
    path: str
    status: int
    body_bytes: int


@dataclass
class Room:
    """What the door keeps for one cell. `busy_until` is when a slowed mirror has sent what it has sent."""

    target: str
    listener: socket.socket
    faults: MirrorFaults | None = None
    requests: list[MirrorRequest] = field(default_factory=list)
    faulty: bool = False
    met: int = 0
    busy_until: float = 0.0

    def meets(self, path: str) -> MirrorFaults | None:
        """The faults that a request for this path meets."""
        faults = self.faults
        return faults if faults is not None and self.faulty and not self.spent() and faults.concern(path) else None

    def spent(self) -> bool:
        """Whether as many requests have met the faults as should."""
        return self.faults is not None and 0 < self.faults.times <= self.met

    def begin(self) -> None:
        """Let the faults begin, and count from here."""
        self.faulty, self.met = True, 0


class Asked(NamedTuple):
    """A request that waits for its answer."""

    method: str
    path: str
    faults: MirrorFaults | None


class Heads:
    """Finds the heads in one direction of an HTTP/1.1 connection, and counts the bytes of the bodies between them."""

    def __init__(self) -> None:
        self.head = b""
        self.body_left = 0
        self.opaque = False

    def feed(self, data: bytes) -> list[list[str]]:
        """The lines of each head that ends in `data`; the caller sets `body_left` through `expect`."""
        heads = []
        view = data
        while view and not self.opaque:
            if self.body_left:
                taken = min(self.body_left, len(view))
                self.body_left -= taken
                view = view[taken:]
                continue
            self.head += view
            end = self.head.find(HEAD_END)
            if end < 0:
                break
            text, view = self.head[:end], self.head[end + len(HEAD_END) :]
            self.head = b""
            lines = text.decode("latin-1").split("\r\n")
            self.body_left = self.expect(lines)
            heads.append(lines)
        return heads

    def expect(self, lines: list[str]) -> int:
        """How many bytes of body follow a head."""
        fields = _fields(lines)
        if "chunked" in fields.get("transfer-encoding", ""):
            self.opaque = True
        return int(fields.get("content-length", "0"))


class Answers(Heads):
    """Answers, whose bodies depend on the requests that they answer."""

    def __init__(self, asked: deque[Asked], room: Room) -> None:
        super().__init__()
        self.asked = asked
        self.room = room
        self.rate = 0
        self.withheld = NEVER

    def expect(self, lines: list[str]) -> int:
        status = int(lines[0].split()[1])
        if status == 100:
            return 0
        method, path, faults = self.asked.popleft() if self.asked else Asked("?", "?", None)
        size = 0 if method == "HEAD" or status in (204, 304) else super().expect(lines)
        self.rate = faults.bytes_per_second if faults else 0
        cut = faults is not None and faults.cuts(size) and not self.room.spent()
        self.room.met += cut
        self.withheld = size - faults.reset_after if faults and cut else NEVER
        self.room.requests.append(MirrorRequest(method, path, status, faults.reset_after if faults and cut else size))
        return size

    def excess(self) -> int:
        """How many of the bytes read so far lie behind the place at which the connection is to be reset; NEVER before it."""
        return NEVER if self.withheld == NEVER or self.body_left > self.withheld else self.withheld - self.body_left


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}
