"""The mirror's door: joins connections that arrive in cells to the registry, and keeps count of what passes.

One thread serves all cells. It waits on listening sockets that live in the cells' network namespaces; bytes are passed on as they
come, and the heads of requests and answers are read on the way, so that what a cell fetched can be proven by numbers. A cell reads
its own count at `GET /_bk/requests`. Requests of a cell whose axis values say so meet faults.

A request that cannot be read for certain is refused. An answer that cannot be passes, like all that follows on its connection. Both
are named in the count, so that a test that asks for it fails.
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
    OWN,
    Answers,
    Asked,
    Kind,
    Messages,
    NotHttp,
    Requests,
    Room,
    Uncountable,
)

HEAD_END = b"\r\n\r\n"
_CHUNK = 1 << 18
_SLICES = 20
"""Into how many pieces a second of a slowed answer is cut at least."""
_NO_LINGER = struct.pack("ii", 1, 0)
"""With it a closed connection is reset."""


@dataclass
class _End:
    """One end of a joined connection: what it reads goes to `peer`, what could not be written yet waits in `pending`."""

    socket: socket.socket
    messages: Messages
    asked: deque[Asked]
    room: Room
    peer: _End | None = None
    pending: bytearray = field(default_factory=bytearray)
    finished: bool = False
    reset: bool = False
    held: bool = False


class MirrorDoor(threading.Thread):
    """Serves the listeners of cells until `close`."""

    def __init__(self) -> None:
        super().__init__(name="mirror-door", daemon=True)
        self._poll = select.epoll()
        self._rooms: dict[int, Room] = {}
        self._ends: dict[int, _End] = {}
        self._buffer = memoryview(bytearray(_CHUNK))
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._calls: deque[tuple[str, int, Room | None]] = deque()
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._held: list[tuple[float, int, _End]] = []
        self._serial = itertools.count()
        self._ended = False
        self._starting = threading.Lock()

    def add(self, descriptor: int, target: str, faults: MirrorFaults | None = None) -> int:
        """Serve a listening socket from the registry at the unix socket `target`, with its faults; a handle for `remove`."""
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        self._call("add", descriptor, Room(target, listener, faults, faulty=faults is not None and not faults.later))
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

    def _call(self, what: str, descriptor: int, room: Room | None) -> None:
        with self._starting:
            if not self.is_alive():
                self.start()
        self._calls.append((what, descriptor, room))
        os.write(self._wake_write, b"!")

    def run(self) -> None:
        """The thread's loop."""
        while not self._ended:
            for descriptor, events in self._poll.poll(self._release()):
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                    self._obey()
                elif descriptor in self._rooms:
                    self._accept(self._rooms[descriptor])
                elif descriptor in self._ends:
                    self._serve(self._ends[descriptor], events)
        for descriptor in list(self._rooms):
            self._close_room(descriptor)
        self._poll.close()

    def _obey(self) -> None:
        while self._calls:
            what, descriptor, room = self._calls.popleft()
            if room is not None:
                self._rooms[descriptor] = room
                self._poll.register(descriptor, select.EPOLLIN)
            elif what == "stop":
                self._ended = True
            elif descriptor in self._rooms:
                self._close_room(descriptor)

    def _close_room(self, descriptor: int) -> None:
        gone = self._rooms.pop(descriptor)
        for end in [end for end in self._ends.values() if end.room is gone]:
            self._drop(end)
        self._poll.unregister(descriptor)
        gone.listener.close()

    def _accept(self, room: Room) -> None:
        try:
            client, _ = room.listener.accept()
        except OSError:
            return  # the client went away between the event and now
        upstream = socket.socket(socket.AF_UNIX)
        try:
            upstream.connect(room.target)
        except OSError:
            client.close()
            upstream.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked: deque[Asked] = deque()
        near = _End(client, Requests(), asked, room)
        far = _End(upstream, Answers(asked, room), asked, room)
        near.peer, far.peer = far, near
        for end in (near, far):
            end.socket.setblocking(False)
            self._ends[end.socket.fileno()] = end
            self._poll.register(end.socket.fileno(), select.EPOLLIN)

    def _serve(self, end: _End, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._flush(end)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not end.finished:
                self._read(end)
        except BlockingIOError:
            pass  # the event was one of a connection before, which had the same descriptor
        except OSError:
            self._drop(end)  # a broken connection: nothing of it can go on

    def _read(self, end: _End) -> None:
        if isinstance(end.messages, Answers):
            self._read_answer(end, end.messages)
        elif isinstance(end.messages, Requests):
            self._read_request(end, end.messages)

    def _read_request(self, end: _End, requests: Requests) -> None:
        size = end.socket.recv_into(self._buffer)
        if not size:
            self._end_of(end)
            return
        data = bytes(self._buffer[:size])
        try:
            for begin, stop, kind, head in requests.feed(data):
                assert end.peer is not None
                if kind is Kind.HEAD:
                    if not self._admit(end, requests.last):
                        return
                    self._write(end.peer, head + HEAD_END)
                elif kind is not Kind.PIECE:
                    self._write(end.peer, data[begin:stop])
        except Uncountable as doubt:
            reason = f"a request was refused: {doubt}"
            if not isinstance(doubt, NotHttp):
                end.room.doubt(reason)
            self._answer(end, HTTPStatus.BAD_REQUEST, json.dumps({"errors": [{"message": reason}]}).encode())

    def _admit(self, end: _End, request: Asked) -> bool:
        """Whether a request goes on to the registry. What does not is answered here, as the last of its connection."""
        method, path, _ = request
        if path.startswith(OWN):
            self._own(end, path)
            return False
        faults = end.room.meets(path)
        if faults is not None and faults.reset_after <= 0:  # one within a body is counted when it happens
            end.room.met += 1
        if faults is not None and (faults.status or faults.reset_after == 0):
            end.room.add(method, path, faults.status)
            if faults.status:
                self._answer(end, faults.status, retry_after=faults.retry_after)
            else:
                self._reset(end, b"")
            return False
        assert end.peer is not None
        end.asked.append(request._replace(faults=faults))
        if faults and (faults.delay or faults.bytes_per_second):
            self._hold(end.peer, max(time.monotonic() + faults.delay, end.room.busy_until))
        return True

    def _read_answer(self, end: _End, answers: Answers) -> None:
        room, now, most = end.room, time.monotonic(), _CHUNK
        if answers.rate and answers.in_body:
            if now < room.busy_until:
                self._hold(end, room.busy_until)
                return
            most = max(1, min(_CHUNK, answers.rate // _SLICES))
        size = end.socket.recv_into(self._buffer, most)
        if not size:
            self._end_of(end)
            return
        data = bytes(self._buffer[:size])
        passing = NEVER
        try:
            passing = answers.take(data)
        except Uncountable as doubt:
            room.doubt(f"an answer was not read: {doubt}")
            self._give_up(end)
        if answers.rate:
            room.busy_until = max(now, room.busy_until) + size / answers.rate
        assert end.peer is not None
        if passing == NEVER:
            self._write(end.peer, data)
        else:
            self._reset(end.peer, data[:passing])

    def _give_up(self, far: _End) -> None:
        """Let all that is still to come on a connection pass unread."""
        near = far.peer
        assert near is not None
        far.messages.opaque = near.messages.opaque = True
        self._write(far, near.messages.held)
        far.asked.clear()

    def _hold(self, end: _End, until: float) -> None:
        """Read nothing more from this end until then. It leaves the poll, since a hang-up would wake that all the time."""
        if not end.held:
            end.held = True
            self._poll.unregister(end.socket.fileno())
        heapq.heappush(self._held, (until, next(self._serial), end))

    def _release(self) -> float | None:
        """Let go of the ends whose time has come; the seconds until the next one's."""
        while self._held:
            left = self._held[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, end = heapq.heappop(self._held)
            if end.held and self._ends.get(end.socket.fileno()) is end:
                end.held = False
                wanted = (select.EPOLLOUT if end.pending else 0) | (0 if end.finished else select.EPOLLIN)
                self._poll.register(end.socket.fileno(), wanted)
        return None

    def _watch(self, end: _End, events: int) -> None:
        if not end.held:
            self._poll.modify(end.socket.fileno(), events)

    def _end_of(self, end: _End) -> None:
        """One side has said all: what the other has not read yet is still owed to it."""
        peer = end.peer
        if peer is None or not peer.pending:
            self._drop(end)
            return
        peer.peer = end.peer = None
        peer.finished = True
        self._watch(peer, select.EPOLLOUT)
        self._drop(end)

    def _own(self, end: _End, path: str) -> None:
        """Answer what is asked of the door itself."""
        room = end.room
        if path == COUNTS:
            record = [asdict(one.request()) for one in room.record]
            self._answer(end, 200, json.dumps({"requests": record, "uncounted": room.uncounted}).encode())
        elif path in (BEGIN_FAULTS, END_FAULTS) and room.faults is not None:
            if path == BEGIN_FAULTS:
                room.begin()
            else:
                room.faulty = False
            self._answer(end, 200)
        else:
            self._answer(end, 404)

    def _answer(self, end: _End, status: int, body: bytes = b"", *, retry_after: int = 0) -> None:
        """Answer a request in the registry's stead, and end the connection."""
        head = (
            f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        head += f"Retry-After: {retry_after}\r\n" if retry_after else ""
        self._part(end)
        self._write(end, f"{head}Connection: close\r\n\r\n".encode() + body)

    def _reset(self, end: _End, data: bytes) -> None:
        """Reset the connection to a client after these bytes."""
        end.reset = True
        self._part(end)
        self._write(end, data)

    def _part(self, end: _End) -> None:
        """Close the side of the registry: this end gets what is owed to it, and nothing is read from it."""
        peer, end.peer, end.finished = end.peer, None, True
        if peer is not None:
            peer.peer = None
            self._drop(peer)
        self._watch(end, 0)

    def _write(self, end: _End, data: bytes) -> None:
        if not end.pending:
            with suppress(BlockingIOError):
                data = data[end.socket.send(data) :]
        if data or end.pending:
            end.pending += data
            self._watch(end, select.EPOLLOUT | (0 if end.finished else select.EPOLLIN))
            if end.peer is not None:
                self._watch(end.peer, select.EPOLLOUT if end.peer.pending else 0)
        elif end.finished:
            self._drop(end)

    def _flush(self, end: _End) -> None:
        del end.pending[: end.socket.send(end.pending)]
        if end.pending:
            return
        if end.finished:
            self._drop(end)
            return
        assert end.peer is not None
        self._watch(end, select.EPOLLIN)
        self._watch(end.peer, select.EPOLLIN | (select.EPOLLOUT if end.peer.pending else 0))

    def _drop(self, end: _End) -> None:
        for one in (end, end.peer):
            if one is not None and isinstance(one.messages, Answers):
                one.messages.lost()
            if one is not None and self._ends.get(one.socket.fileno()) is one:
                del self._ends[one.socket.fileno()]
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
