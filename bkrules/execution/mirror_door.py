"""The mirror's door: joins connections that arrive in cells to the registry, and keeps count of what passes.

One thread serves all cells. It waits on listening sockets that live in the cells' network namespaces; bytes are passed on as they
come, and the heads of requests and answers are read on the way, so that what a cell fetched can be proven by numbers. A cell reads
its own count at `GET /_bk/requests`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field

HEAD_END = b"\r\n\r\n"
COUNTS = "/_bk/requests"
_CHUNK = 1 << 18


@dataclass(frozen=True)
class MirrorRequest:
    """One request that a cell made to its mirror; `path` is without its query, `body_bytes` the length of the answer's body."""

    method: str
    path: str
    status: int
    body_bytes: int


@dataclass
class _Room:
    """What the door keeps for one cell."""

    target: str
    listener: socket.socket
    requests: list[MirrorRequest] = field(default_factory=list)


class _Heads:
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


class _Answers(_Heads):
    """Answers, whose bodies depend on the requests that they answer."""

    def __init__(self, asked: deque[tuple[str, str]], room: _Room) -> None:
        super().__init__()
        self.asked = asked
        self.room = room

    def expect(self, lines: list[str]) -> int:
        status = int(lines[0].split()[1])
        if status == 100:
            return 0
        method, path = self.asked.popleft() if self.asked else ("?", "?")
        size = 0 if method == "HEAD" or status in (204, 304) else super().expect(lines)
        self.room.requests.append(MirrorRequest(method, path, status, size))
        return size


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


@dataclass
class _End:
    """One end of a joined connection: what it reads goes to `peer`, what could not be written yet waits in `pending`."""

    socket: socket.socket
    heads: _Heads
    asked: deque[tuple[str, str]] | None
    room: _Room
    peer: _End | None = None
    pending: bytearray = field(default_factory=bytearray)
    finished: bool = False


class MirrorDoor(threading.Thread):
    """Serves the listeners of cells until `close`."""

    def __init__(self) -> None:
        super().__init__(name="mirror-door", daemon=True)
        self._poll = select.epoll()
        self._rooms: dict[int, _Room] = {}
        self._ends: dict[int, _End] = {}
        self._buffer = memoryview(bytearray(_CHUNK))
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._calls: deque[tuple[str, int, _Room | None]] = deque()
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._ended = False
        self._starting = threading.Lock()

    def add(self, descriptor: int, target: str) -> int:
        """Serve a listening socket from the registry at the unix socket `target`; a handle for `remove`."""
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        self._call("add", descriptor, _Room(target, listener))
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

    def _call(self, what: str, descriptor: int, room: _Room | None) -> None:
        with self._starting:
            if not self.is_alive():
                self.start()
        self._calls.append((what, descriptor, room))
        os.write(self._wake_write, b"!")

    def run(self) -> None:
        """The thread's loop."""
        while not self._ended:
            for descriptor, events in self._poll.poll():
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

    def _accept(self, room: _Room) -> None:
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
        asked: deque[tuple[str, str]] = deque()
        near = _End(client, _Heads(), asked, room)
        far = _End(upstream, _Answers(asked, room), None, room)
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
        except (OSError, ValueError, IndexError):
            self._drop(end)  # a broken connection, or bytes that are not HTTP: nothing of it can go on

    def _read(self, end: _End) -> None:
        size = end.socket.recv_into(self._buffer)
        if not size:
            self._end_of(end)
            return
        data = bytes(self._buffer[:size])
        for lines in end.heads.feed(data):
            if end.asked is None:
                continue
            method, path, _ = lines[0].split(" ", 2)
            if path == COUNTS:
                self._count(end)
                return
            end.asked.append((method, path.partition("?")[0]))
        assert end.peer is not None
        self._write(end.peer, data)

    def _end_of(self, end: _End) -> None:
        """One side has said all: what the other has not read yet is still owed to it."""
        peer = end.peer
        if peer is None or not peer.pending:
            self._drop(end)
            return
        peer.peer = end.peer = None
        peer.finished = True
        self._poll.modify(peer.socket.fileno(), select.EPOLLOUT)
        self._drop(end)

    def _count(self, end: _End) -> None:
        body = json.dumps([asdict(one) for one in end.room.requests]).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        end.finished = True
        self._poll.modify(end.socket.fileno(), 0)
        self._write(end, head.encode() + body)

    def _write(self, end: _End, data: bytes) -> None:
        if not end.pending:
            with suppress(BlockingIOError):
                data = data[end.socket.send(data) :]
        if data:
            end.pending += data
            self._poll.modify(end.socket.fileno(), select.EPOLLOUT | (0 if end.finished else select.EPOLLIN))
            if end.peer is not None:
                self._poll.modify(end.peer.socket.fileno(), select.EPOLLOUT if end.peer.pending else 0)
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
        self._poll.modify(end.socket.fileno(), select.EPOLLIN)
        self._poll.modify(end.peer.socket.fileno(), select.EPOLLIN | (select.EPOLLOUT if end.peer.pending else 0))

    def _drop(self, end: _End) -> None:
        for one in (end, end.peer):
            if one is not None and self._ends.get(one.socket.fileno()) is one:
                del self._ends[one.socket.fileno()]
                self._poll.unregister(one.socket.fileno())
                one.socket.close()
