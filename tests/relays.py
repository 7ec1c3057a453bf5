"""A relay on the loopback in front of a real server: a test can act in the middle of a stream of bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_PIECE = 1 << 16
_ANSWERS, _REQUESTS = "answers", "requests"


@dataclass
class Relay:
    """A relay. `passed` counts the bytes of requests and of answers."""

    port: int = 0
    passed: dict[str, int] = field(default_factory=lambda: {_REQUESTS: 0, _ANSWERS: 0})
    connections: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    def cut(self) -> None:
        """Close all connections, as the end of a server does."""
        for one in self._sockets[:]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(
    port: int,
    then: Callable[[Relay], None],
    *,
    answers: int = 0,
    requests: int = 0,
    first: Callable[[], object] = lambda: None,
) -> Iterator[Relay]:
    """A relay in front of a port. After that many bytes of answers or of requests it calls `then`, once.

    Each connection calls `first` in its own thread before a byte of a request passes.
    """
    made, lock = Relay(), threading.Lock()
    limits = {name: limit for name, limit in ((_ANSWERS, answers), (_REQUESTS, requests)) if limit}

    def count(kind: str, size: int) -> None:
        with lock:
            made.passed[kind] += size
            is_time = kind in limits and made.passed[kind] >= limits[kind]
            if is_time:
                limits.clear()
        if is_time:
            then(made)

    def pump(kind: str, source: socket.socket, target: socket.socket) -> None:
        if kind == _REQUESTS:
            first()
        with suppress(OSError):
            while data := source.recv(_PIECE):
                target.sendall(data)
                count(kind, len(data))
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                made.connections += 1
                try:
                    far = socket.create_connection(("127.0.0.1", port))
                except OSError:
                    near.close()
                    continue
                made._sockets += [near, far]
                for words in ((_REQUESTS, near, far), (_ANSWERS, far, near)):
                    threading.Thread(target=pump, args=words, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        made.port = listening.getsockname()[1]
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield made
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            made.cut()
            for one in made._sockets:
                one.close()
