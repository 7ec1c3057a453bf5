"""The mirror proxy: joins connections that arrive in cells to the registry, and counts their requests.

One thread serves all cells. It waits on listening sockets that live in the cells' network namespaces. It forwards bytes as they
arrive and parses the heads of requests and answers on the way, so that numbers prove what a cell fetched. A cell reads its count at
`GET /_bk/requests`. Requests meet faults in a cell whose axis values define them.

The proxy refuses a request whose framing is ambiguous. It forwards an answer whose framing is ambiguous, and all that follows on
that connection, without parsing. Both are named in the count, so that a test that asks for the count fails.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus

from bkrules.mirror.faults import NEVER, MirrorFaults
from bkrules.mirror.http1 import (
    BEGIN_FAULTS,
    COUNTS,
    END_FAULTS,
    PROXY_PATH,
    CellMirror,
    Kind,
    MessageParser,
    NotHttp,
    PendingRequest,
    RequestParser,
    ResponseParser,
    Uncountable,
)

HEAD_END = b"\r\n\r\n"
_CHUNK = 1 << 18
_SLICES = 20
"""The least number of pieces in which a slowed answer is forwarded each second."""
_NO_LINGER = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a connection resets it."""


@dataclass
class _Side:
    """One side of a joined connection: bytes read from it go to `peer`, bytes not yet written to it wait in `pending`."""

    socket: socket.socket
    messages: MessageParser
    unanswered: deque[PendingRequest]
    cell: CellMirror
    peer: _Side | None = None
    pending: bytearray = field(default_factory=bytearray)
    finished: bool = False
    reset: bool = False
    held: bool = False


class MirrorProxy(threading.Thread):
    """Serves the listeners of cells until `close`."""

    def __init__(self) -> None:
        super().__init__(name="mirror-proxy", daemon=True)
        self._poll = select.epoll()
        self._cells: dict[int, CellMirror] = {}
        self._sides: dict[int, _Side] = {}
        self._buffer = memoryview(bytearray(_CHUNK))
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._calls: deque[tuple[str, int, CellMirror | None]] = deque()
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._held: list[tuple[float, int, _Side]] = []
        self._serial = itertools.count()
        self._ended = False
        self._starting = threading.Lock()

    def add(self, descriptor: int, target: str, faults: MirrorFaults | None = None) -> int:
        """Serve a listening socket from the registry at the unix socket `target`, with faults. Return a handle for `remove`."""
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        self._call(
            "add", descriptor, CellMirror(target, listener, faults, faulty=faults is not None and not faults.later)
        )
        return descriptor

    def remove(self, handle: int) -> None:
        """Stop serving a cell, and close its connections."""
        self._call("remove", handle, None)

    def close(self) -> None:
        """End the thread."""
        if self.is_alive():
            self._call("stop", -1, None)
            self.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _call(self, what: str, descriptor: int, cell: CellMirror | None) -> None:
        with self._starting:
            if not self.is_alive():
                self.start()
        self._calls.append((what, descriptor, cell))
        os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Serve events until `close`."""
        while not self._ended:
            for descriptor, events in self._poll.poll(self._release()):
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                    self._obey()
                elif descriptor in self._cells:
                    self._accept(self._cells[descriptor])
                elif descriptor in self._sides:
                    self._serve(self._sides[descriptor], events)
        for descriptor in list(self._cells):
            self._close_cell(descriptor)
        self._poll.close()

    def _obey(self) -> None:
        while self._calls:
            what, descriptor, cell = self._calls.popleft()
            if cell is not None:
                self._cells[descriptor] = cell
                self._poll.register(descriptor, select.EPOLLIN)
            elif what == "stop":
                self._ended = True
            elif descriptor in self._cells:
                self._close_cell(descriptor)

    def _close_cell(self, descriptor: int) -> None:
        gone = self._cells.pop(descriptor)
        for side in [side for side in self._sides.values() if side.cell is gone]:
            self._drop(side)
        self._poll.unregister(descriptor)
        gone.listener.close()

    def _accept(self, cell: CellMirror) -> None:
        try:
            client, _ = cell.listener.accept()
        except OSError:
            return  # the client went away between the event and now
        upstream = socket.socket(socket.AF_UNIX)
        try:
            upstream.connect(cell.target)
        except OSError:
            client.close()
            upstream.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unanswered: deque[PendingRequest] = deque()
        near = _Side(client, RequestParser(), unanswered, cell)
        far = _Side(upstream, ResponseParser(unanswered, cell), unanswered, cell)
        near.peer, far.peer = far, near
        for side in (near, far):
            side.socket.setblocking(False)
            self._sides[side.socket.fileno()] = side
            self._poll.register(side.socket.fileno(), select.EPOLLIN)

    def _serve(self, side: _Side, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._flush(side)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not side.finished:
                self._read(side)
        except BlockingIOError:
            pass  # the event belongs to an earlier connection with the same descriptor
        except OSError:
            self._drop(side)  # the connection is broken

    def _read(self, side: _Side) -> None:
        if isinstance(side.messages, ResponseParser):
            self._read_answer(side, side.messages)
        elif isinstance(side.messages, RequestParser):
            self._read_request(side, side.messages)

    def _read_request(self, side: _Side, requests: RequestParser) -> None:
        size = side.socket.recv_into(self._buffer)
        if not size:
            self._end_of(side)
            return
        data = bytes(self._buffer[:size])
        try:
            for begin, stop, kind, head in requests.feed(data):
                assert side.peer is not None
                if kind is Kind.HEAD:
                    if not self._admit(side, requests.last):
                        return
                    self._write(side.peer, head + HEAD_END)
                elif kind is not Kind.PIECE:
                    self._write(side.peer, data[begin:stop])
        except Uncountable as doubt:
            reason = f"a request was refused: {doubt}"
            if not isinstance(doubt, NotHttp):
                side.cell.doubt(reason)
            self._answer(side, HTTPStatus.BAD_REQUEST, json.dumps({"errors": [{"message": reason}]}).encode())

    def _admit(self, side: _Side, request: PendingRequest) -> bool:
        """Return whether to forward a request to the registry. Answer all others here, as the last of their connection."""
        method, path, _ = request
        if path.startswith(PROXY_PATH):
            self._own_answer(side, path)
            return False
        faults = side.cell.meets(path)
        if faults is not None and faults.reset_after <= 0:  # a reset within a body is counted when it happens
            side.cell.met += 1
        if faults is not None and (faults.status or faults.reset_after == 0):
            side.cell.add(method, path, faults.status)
            if faults.status:
                self._answer(side, faults.status, retry_after=faults.retry_after)
            else:
                self._reset(side, b"")
            return False
        assert side.peer is not None
        side.unanswered.append(request._replace(faults=faults))
        if faults and (faults.delay or faults.bytes_per_second):
            self._hold(side.peer, max(time.monotonic() + faults.delay, side.cell.busy_until))
        return True

    def _read_answer(self, side: _Side, answers: ResponseParser) -> None:
        cell, now, most = side.cell, time.monotonic(), _CHUNK
        if answers.rate and answers.in_body:
            if now < cell.busy_until:
                self._hold(side, cell.busy_until)
                return
            most = max(1, min(_CHUNK, answers.rate // _SLICES))
        size = side.socket.recv_into(self._buffer, most)
        if not size:
            self._end_of(side)
            return
        data = bytes(self._buffer[:size])
        passing = NEVER
        try:
            passing = answers.take(data)
        except Uncountable as doubt:
            cell.doubt(f"an answer was not read: {doubt}")
            self._give_up(side)
        if answers.rate:
            cell.busy_until = max(now, cell.busy_until) + size / answers.rate
        assert side.peer is not None
        if passing == NEVER:
            self._write(side.peer, data)
        else:
            self._reset(side.peer, data[:passing])

    def _give_up(self, far: _Side) -> None:
        """Forward the rest of a connection without parsing."""
        near = far.peer
        assert near is not None
        far.messages.opaque = near.messages.opaque = True
        self._write(far, near.messages.held)
        far.unanswered.clear()

    def _hold(self, side: _Side, until: float) -> None:
        """Pause reading from this side. It leaves the poll, since a hang-up would wake the poll all the time."""
        if not side.held:
            side.held = True
            self._poll.unregister(side.socket.fileno())
        heapq.heappush(self._held, (until, next(self._serial), side))

    def _release(self) -> float | None:
        """Resume the sides whose pause is over. Return the seconds until the next resume."""
        while self._held:
            left = self._held[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, side = heapq.heappop(self._held)
            if side.held and self._sides.get(side.socket.fileno()) is side:
                side.held = False
                wanted = (select.EPOLLOUT if side.pending else 0) | (0 if side.finished else select.EPOLLIN)
                self._poll.register(side.socket.fileno(), wanted)
        return None

    def _watch(self, side: _Side, events: int) -> None:
        if not side.held:
            self._poll.modify(side.socket.fileno(), events)

    def _end_of(self, side: _Side) -> None:
        """Close a side that has reached its end of file, after its peer has received all pending bytes."""
        peer = side.peer
        if peer is None or not peer.pending:
            self._drop(side)
            return
        peer.peer = side.peer = None
        peer.finished = True
        self._watch(peer, select.EPOLLOUT)
        self._drop(side)

    def _own_answer(self, side: _Side, path: str) -> None:
        """Answer a request for the proxy itself."""
        cell = side.cell
        if path == COUNTS:
            record = [asdict(one.request()) for one in cell.record]
            self._answer(side, 200, json.dumps({"requests": record, "uncounted": cell.uncounted}).encode())
        elif path in (BEGIN_FAULTS, END_FAULTS) and cell.faults is not None:
            if path == BEGIN_FAULTS:
                cell.begin()
            else:
                cell.faulty = False
            self._answer(side, 200)
        else:
            self._answer(side, 404)

    def _answer(self, side: _Side, status: int, body: bytes = b"", *, retry_after: int = 0) -> None:
        """Answer a request in place of the registry, and end the connection."""
        head = (
            f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        head += f"Retry-After: {retry_after}\r\n" if retry_after else ""
        self._part(side)
        self._write(side, f"{head}Connection: close\r\n\r\n".encode() + body)

    def _reset(self, side: _Side, data: bytes) -> None:
        """Reset the connection to a client after these bytes."""
        side.reset = True
        self._part(side)
        self._write(side, data)

    def _part(self, side: _Side) -> None:
        """Close the registry's side. This side still receives its pending bytes; nothing is read from it."""
        peer, side.peer, side.finished = side.peer, None, True
        if peer is not None:
            peer.peer = None
            self._drop(peer)
        self._watch(side, 0)

    def _write(self, side: _Side, data: bytes) -> None:
        if not side.pending:
            with suppress(BlockingIOError):
                data = data[side.socket.send(data) :]
        if data or side.pending:
            side.pending += data
            self._watch(side, select.EPOLLOUT | (0 if side.finished else select.EPOLLIN))
            if side.peer is not None:
                self._watch(side.peer, select.EPOLLOUT if side.peer.pending else 0)
        elif side.finished:
            self._drop(side)

    def _flush(self, side: _Side) -> None:
        del side.pending[: side.socket.send(side.pending)]
        if side.pending:
            return
        if side.finished:
            self._drop(side)
            return
        assert side.peer is not None
        self._watch(side, select.EPOLLIN)
        self._watch(side.peer, select.EPOLLIN | (select.EPOLLOUT if side.peer.pending else 0))

    def _drop(self, side: _Side) -> None:
        for one in (side, side.peer):
            if one is not None and isinstance(one.messages, ResponseParser):
                one.messages.lost()
            if one is not None and self._sides.get(one.socket.fileno()) is one:
                del self._sides[one.socket.fileno()]
                if not one.held:
                    self._poll.unregister(one.socket.fileno())
                if one.reset:
                    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                one.socket.close()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
