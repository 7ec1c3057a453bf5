"""A server of gRPC that writes its HTTP/2 frames itself, so that it can write any that no library would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from grpc_servers import ABILITIES

from bkrules.model import reapi

DATA, HEADERS, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_PREFACE = 24  # bytes
_HONEST = 2  # the number of the last request with an honest answer
_FRAME = 9  # bytes of a frame before its content
_LARGE = 127  # a length that does not fit into 7 bits


def frame(kind: int, stream: int, content: bytes = b"", flags: int = 0) -> bytes:
    """A frame."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def block(*headers: tuple[str, bytes]) -> bytes:
    """Headers, none of them compressed."""
    return b"".join(b"\0" + _text(name.encode()) + _text(value) for name, value in headers)


def _text(data: bytes) -> bytes:
    size = len(data)
    if size < _LARGE:
        return bytes([size]) + data
    rest, digits = size - _LARGE, b"\x7f"
    while rest >= 1 << 7:
        digits += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return digits + bytes([rest]) + data


def start(stream: int, *headers: tuple[str, bytes]) -> bytes:
    """The head of an answer."""
    every = ((":status", b"200"), ("content-type", b"application/grpc"), *headers)
    return frame(HEADERS, stream, block(*every), END_HEADERS)


def message(stream: int, data: bytes, *, size: int = -1, compressed: bool = False) -> bytes:
    """A message, which may claim another size."""
    announced = len(data) if size < 0 else size
    content = bytes([compressed]) + announced.to_bytes(4, "big") + data
    parts = [content[at : at + (1 << 14)] for at in range(0, len(content), 1 << 14)]
    return b"".join(frame(DATA, stream, part) for part in parts)


def end(stream: int, *headers: tuple[str, bytes], status: bytes = b"0") -> bytes:
    """The end of an answer."""
    return frame(HEADERS, stream, block(("grpc-status", status), *headers), END_HEADERS | END_STREAM)


@dataclass
class RawServer:
    """Where it listens, and the number of requests so far."""

    address: str = ""
    requests: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)


Attack = Callable[[Callable[[bytes], None], int, RawServer], None]


@contextmanager
def raw_server(attack: Attack) -> Iterator[RawServer]:
    """A server that tells its abilities, lacks a result, and answers each further request with the attack: that gets a
    function that sends bytes, and the number of the stream.
    """
    server = RawServer()
    sockets: list[socket.socket] = []
    abilities = reapi.encode("ServerCapabilities", ABILITIES)

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as reader:
            reader.read(_PREFACE)
            connection.sendall(frame(SETTINGS, 0))
            while len(head := reader.read(_FRAME)) == _FRAME:
                size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], head[5:]
                content = reader.read(size)
                if kind in (SETTINGS, PING) and not flags & ACK:
                    connection.sendall(frame(kind, 0, content if kind == PING else b"", ACK))
                if kind != DATA or not flags & END_STREAM:
                    continue
                number = int.from_bytes(stream, "big")
                server.requests += 1
                if server.requests == 1:
                    connection.sendall(start(number) + message(number, abilities) + end(number))
                elif server.requests == _HONEST:
                    connection.sendall(start(number) + end(number, status=b"5"))
                else:
                    attack(connection.sendall, number, server)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                sockets.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        server.address = f"grpc://127.0.0.1:{listening.getsockname()[1]}"
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            server.stopped.set()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for connection in sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
