"""Servers on the loopback that do with each connection what a test says, however wrong."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Peer:
    """Where the server listens, and the heads of the requests so far, as they came."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def header(self, name: str) -> list[str]:
        """The values of a header in the requests so far."""
        lines = [line for head in self.heads for line in head.split("\r\n")]
        return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}: ")]


Script = Callable[[socket.socket], None]


def read_head(connection: socket.socket) -> str:
    """The next request up to its body, or what there is of it."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            break
        data += piece
    return data.decode("latin-1")


@contextmanager
def peer(answer: Callable[[socket.socket, str], object], context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A server that calls `answer` with the connection and the head of each request, until it returns something true."""
    found = Peer()
    open_connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
                open_connections.append(connection)
            while head := read_head(connection):
                found.heads.append(head)
                if answer(connection, head):
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                found.connections += 1
                open_connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        found.port = listening.getsockname()[1]
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield found
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for connection in open_connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()


def drip(connection: socket.socket, data: bytes, seconds: float = 0.02) -> None:
    """Send bytes one by one, until the client has gone."""
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(seconds)


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """An answer; `Content_Length` and the like replace what would be sent."""
    named = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
    lines = [f"HTTP/1.1 {status} Words", *(f"{name}: {text}" for name, text in named.items() if text)]
    return "\r\n".join([*lines, "", ""]).encode() + body
