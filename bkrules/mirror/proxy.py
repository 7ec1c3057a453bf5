"""The mirror proxy: joins connections that arrive in cells to the registry, and counts their requests.

One thread serves all cells. It waits on listening sockets that live in the cells' network namespaces. It forwards bytes as they
arrive and parses the heads of requests and answers on the way, so that numbers prove what a cell fetched. A cell reads its count at
`GET /_bk/requests`. Requests meet faults in a cell whose axis values define them.

The proxy refuses a request whose framing is ambiguous. It forwards an answer whose framing is ambiguous, and all that follows on
that connection, without parsing. Both are named in the count, so that a test that asks for the count fails.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus

from bkrules.mirror.connections import Connections, Side
from bkrules.mirror.faults import NEVER, MirrorFaults
from bkrules.mirror.http1 import (
    Kind,
    NotHttp,
    PendingRequest,
    RequestParser,
    ResponseParser,
    Uncountable,
)
from bkrules.mirror.record import BEGIN_FAULTS, COUNTS, END_FAULTS, PROXY_PATH, CellMirror, Counted

HEAD_END = b"\r\n\r\n"
_CHUNK = 1 << 18
_EXHAUSTED = "a connection was refused: bk has no file descriptor left; allow more open files:  ulimit -n 4096"
_DESCRIPTORS = 16384
"""The number of open files that bk allows itself, if it may."""
MOST_CONNECTIONS = 256
"""The limit of the open connections of one cell, or fewer: they have at most a quarter of bk's descriptors."""
_SLICES = 20
"""The least number of pieces in which a slowed answer is forwarded each second."""


class MirrorProxy(threading.Thread):
    """Serves the listeners of cells until `close`."""

    def __init__(self) -> None:
        super().__init__(name="mirror-proxy", daemon=True)
        self._poll = select.epoll()
        self._cells: dict[int, CellMirror] = {}
        self._connections = Connections(self._poll)
        self._buffer = memoryview(bytearray(_CHUNK))
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._calls: deque[tuple[str, int, CellMirror | None]] = deque()
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._spare = [_descriptor()]
        self._most = min(MOST_CONNECTIONS, _allowed_descriptors() // 8)
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

    def crowded(self, handle: int) -> str:
        """Return why a connection of a cell was refused since the last call, if the cell had too many; usually empty."""
        cell = self._cells.get(handle)
        if cell is None:
            return ""
        reason, cell.crowded = cell.crowded, ""
        return reason

    def reached(self, handle: int) -> bool:
        """Return whether a request of a cell has met the faults of its mirror."""
        cell = self._cells.get(handle)
        return cell is not None and cell.reached

    def record(self, handle: int) -> list[Counted]:
        """Return the requests of a cell so far, in the order of their answers."""
        cell = self._cells.get(handle)
        return list(cell.record) if cell is not None else []

    def close(self) -> None:
        """End the thread."""
        if self.is_alive():
            self._call("stop", -1, None)
            self.join()
        for descriptor in (self._wake_read, self._wake_write, *self._spare):
            os.close(descriptor)

    def _call(self, what: str, descriptor: int, cell: CellMirror | None) -> None:
        with self._starting:
            if not self.is_alive():
                self.start()
        self._calls.append((what, descriptor, cell))
        os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Serve events until `close`."""
        while not self._ended:
            for descriptor, events in self._poll.poll(self._connections.resume()):
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                    self._obey()
                elif descriptor in self._cells:
                    self._accept(self._cells[descriptor])
                elif side := self._connections.get(descriptor):
                    self._serve(side, events)
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
        self._connections.drop_cell(gone)
        self._poll.unregister(descriptor)
        gone.listener.close()

    def _accept(self, cell: CellMirror) -> None:
        try:
            client, _ = cell.listener.accept()
        except OSError as error:
            if _is_exhausted(error):
                self._refuse(cell)
            return  # else the client went away between the event and now
        if cell.sides >= 2 * self._most:
            cell.crowded = f"the cell had {self._most} connections to its mirror open and wanted more"
            cell.doubt(cell.crowded)
            client.close()
            return
        try:
            upstream = _connected(cell.target)
        except OSError as error:
            if _is_exhausted(error):
                cell.doubt(_EXHAUSTED)
            client.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unanswered: deque[PendingRequest] = deque()
        self._connections.join(
            Side(client, RequestParser(), unanswered, cell),
            Side(upstream, ResponseParser(unanswered, cell), unanswered, cell),
        )

    def _refuse(self, cell: CellMirror) -> None:
        """Accept and close a connection with the spare descriptor, since a waiting connection would wake the poll all the time."""
        cell.doubt(_EXHAUSTED)
        while self._spare:
            os.close(self._spare.pop())
        with suppress(OSError):  # another thread took the descriptor
            cell.listener.accept()[0].close()
            self._spare.append(_descriptor())

    def _serve(self, side: Side, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._connections.flush(side)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not side.finished:
                self._read(side)
        except BlockingIOError:
            pass  # the event belongs to an earlier connection with the same descriptor
        except OSError:
            self._connections.drop(side)  # the connection is broken

    def _read(self, side: Side) -> None:
        if isinstance(side.messages, ResponseParser):
            self._read_answer(side, side.messages)
        elif isinstance(side.messages, RequestParser):
            self._read_request(side, side.messages)

    def _read_request(self, side: Side, requests: RequestParser) -> None:
        size = side.socket.recv_into(self._buffer)
        if not size:
            self._connections.finish(side)
            return
        data = bytes(self._buffer[:size])
        try:
            for begin, stop, kind, head in requests.feed(data):
                assert side.peer is not None
                if kind is Kind.HEAD:
                    if not self._admit(side, requests.last):
                        return
                    self._connections.write(side.peer, head + HEAD_END)
                elif kind is not Kind.PIECE:
                    self._connections.write(side.peer, data[begin:stop])
        except Uncountable as doubt:
            reason = f"a request was refused: {doubt}"
            if not isinstance(doubt, NotHttp):
                side.cell.doubt(reason)
            self._answer(side, HTTPStatus.BAD_REQUEST, json.dumps({"errors": [{"message": reason}]}).encode())

    def _admit(self, side: Side, request: PendingRequest) -> bool:
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
            self._connections.pause(side.peer, max(time.monotonic() + faults.delay, side.cell.busy_until))
        return True

    def _read_answer(self, side: Side, answers: ResponseParser) -> None:
        cell, now, most = side.cell, time.monotonic(), _CHUNK
        if answers.rate and answers.in_body:
            if now < cell.busy_until:
                self._connections.pause(side, cell.busy_until)
                return
            most = max(1, min(_CHUNK, answers.rate // _SLICES))
        size = side.socket.recv_into(self._buffer, most)
        if not size:
            self._connections.finish(side)
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
            self._connections.write(side.peer, data)
        else:
            self._reset(side.peer, data[:passing])

    def _give_up(self, far: Side) -> None:
        """Forward the rest of a connection without parsing."""
        near = far.peer
        assert near is not None
        far.messages.opaque = near.messages.opaque = True
        self._connections.write(far, near.messages.unfinished)
        far.unanswered.clear()

    def _own_answer(self, side: Side, path: str) -> None:
        """Answer a request for the proxy itself."""
        cell = side.cell
        if path == COUNTS:
            record = [asdict(counted.request()) for counted in cell.record]
            self._answer(side, 200, json.dumps({"requests": record, "uncounted": cell.uncounted}).encode())
        elif path in (BEGIN_FAULTS, END_FAULTS) and cell.faults is not None:
            if path == BEGIN_FAULTS:
                cell.begin()
            else:
                cell.faulty = False
            self._answer(side, 200)
        else:
            self._answer(side, 404)

    def _answer(self, side: Side, status: int, body: bytes = b"", *, retry_after: int = 0) -> None:
        """Answer a request in place of the registry, and end the connection."""
        head = (
            f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        head += f"Retry-After: {retry_after}\r\n" if retry_after else ""
        self._connections.detach(side)
        self._connections.write(side, f"{head}Connection: close\r\n\r\n".encode() + body)

    def _reset(self, side: Side, data: bytes) -> None:
        """Reset the connection to a client after these bytes."""
        side.reset = True
        self._connections.detach(side)
        self._connections.write(side, data)


def _allowed_descriptors() -> int:
    """Raise the limit of this process's open files as far as bk wants and may, and return it.

    The usual 1024 is for programs that call select(), which bk does in processes of few files alone.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(_DESCRIPTORS, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _connected(target: str) -> socket.socket:
    """Return a connection to the unix socket `target`. Raises OSError."""
    upstream = socket.socket(socket.AF_UNIX)
    try:
        upstream.connect(target)
    except OSError:
        upstream.close()
        raise
    return upstream


def _descriptor() -> int:
    """Open a file descriptor that is kept for a time without any. Raises OSError."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _is_exhausted(error: OSError) -> bool:
    """Return whether bk or the machine has no file descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
