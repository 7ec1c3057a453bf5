"""The joined connections of the mirror proxy: what waits to be written, when to read on, and when to close.

A connection has two sides. A side is read only while its peer has nothing left to write, so a slow reader slows its writer down.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from bkrules.mirror.http1 import MessageParser, PendingRequest, ResponseParser
from bkrules.mirror.record import CellMirror

_NO_LINGER = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a connection resets it."""


@dataclass
class Side:
    """One side of a joined connection: bytes read from it go to `peer`, bytes not yet written to it wait in `pending`."""

    socket: socket.socket
    messages: MessageParser
    unanswered: deque[PendingRequest]
    cell: CellMirror
    peer: Side | None = None
    pending: bytearray = field(default_factory=bytearray)
    finished: bool = False
    reset: bool = False
    paused: bool = False


class Connections:
    """The sides of all connections, by their descriptors, and the events for which `poll` watches them."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._sides: dict[int, Side] = {}
        self._pauses: list[tuple[float, int, Side]] = []
        self._serial = itertools.count()

    def get(self, descriptor: int) -> Side | None:
        """Return the side with this descriptor."""
        return self._sides.get(descriptor)

    def join(self, near: Side, far: Side) -> None:
        """Make two sides the ends of one connection, and begin to read from both."""
        near.peer, far.peer = far, near
        for side in (near, far):
            side.socket.setblocking(False)
            side.cell.sides += 1
            self._sides[side.socket.fileno()] = side
            self._poll.register(side.socket.fileno(), select.EPOLLIN)

    def drop_cell(self, cell: CellMirror) -> None:
        """Close all connections of a cell."""
        for side in [side for side in self._sides.values() if side.cell is cell]:
            self.drop(side)

    def pause(self, side: Side, until: float) -> None:
        """Pause reading from this side. It leaves the poll, since a hang-up would wake the poll all the time."""
        if not side.paused:
            side.paused = True
            self._poll.unregister(side.socket.fileno())
        heapq.heappush(self._pauses, (until, next(self._serial), side))

    def resume(self) -> float | None:
        """Resume the sides whose pause is over. Return the seconds until the next resume."""
        while self._pauses:
            left = self._pauses[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, side = heapq.heappop(self._pauses)
            if side.paused and self._sides.get(side.socket.fileno()) is side:
                side.paused = False
                wanted = (select.EPOLLOUT if side.pending else 0) | (0 if side.finished else select.EPOLLIN)
                self._poll.register(side.socket.fileno(), wanted)
        return None

    def _watch(self, side: Side, events: int) -> None:
        if not side.paused:
            self._poll.modify(side.socket.fileno(), events)

    def finish(self, side: Side) -> None:
        """Close a side that has reached its end of file, after its peer has received all pending bytes."""
        peer = side.peer
        if peer is None or not peer.pending:
            self.drop(side)
            return
        peer.peer = side.peer = None
        peer.finished = True
        self._watch(peer, select.EPOLLOUT)
        self.drop(side)

    def detach(self, side: Side) -> None:
        """Close the registry's side. This side still receives its pending bytes; nothing is read from it."""
        peer, side.peer, side.finished = side.peer, None, True
        if peer is not None:
            peer.peer = None
            self.drop(peer)
        self._watch(side, 0)

    def write(self, side: Side, data: bytes) -> None:
        """Write to a side, now or when it can take more. A finished side closes when all is written. Raises OSError."""
        if not side.pending:
            with suppress(BlockingIOError):
                data = data[side.socket.send(data) :]
        if data or side.pending:
            side.pending += data
            self._watch(side, select.EPOLLOUT | (0 if side.finished else select.EPOLLIN))
            if side.peer is not None:
                self._watch(side.peer, select.EPOLLOUT if side.peer.pending else 0)
        elif side.finished:
            self.drop(side)

    def flush(self, side: Side) -> None:
        """Write pending bytes to a side that can take more. Raises OSError."""
        del side.pending[: side.socket.send(side.pending)]
        if side.pending:
            return
        if side.finished:
            self.drop(side)
            return
        assert side.peer is not None
        self._watch(side, select.EPOLLIN)
        self._watch(side.peer, select.EPOLLIN | (select.EPOLLOUT if side.peer.pending else 0))

    def drop(self, side: Side) -> None:
        """Close a side and its peer at once. Pending bytes are lost."""
        for closed in (side, side.peer):
            if closed is not None and isinstance(closed.messages, ResponseParser):
                closed.messages.lost()
            if closed is not None and self._sides.get(closed.socket.fileno()) is closed:
                del self._sides[closed.socket.fileno()]
                closed.cell.sides -= 1
                if not closed.paused:
                    self._poll.unregister(closed.socket.fileno())
                if closed.reset:
                    closed.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                closed.socket.close()
