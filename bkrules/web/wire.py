"""The bytes of one connection, under the limits of the request that uses it."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from typing import Any, Protocol

from bkrules.web.errors import BadAnswer
from bkrules.web.limits import Watch

MOST_HEAD = 256 << 10
"""The limit in bytes of an answer before its body, including all interim answers."""
_PIECE = 64 << 10
_FRAMING = 16  # bytes on the wire for each byte of a chunked body
_MOST_AHEAD = 1 << 20  # bytes that may have arrived before the first byte of the body is read


class Socket(Protocol):
    """The methods of a socket that a connection needs, with TLS and without."""

    def recv_into(self, buffer: Any, /) -> int: ...
    def send(self, data: Any, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Wire:
    """A socket for http.client whose waits are bounded by the watch of the request."""

    def __init__(self, sock: Socket, watch: Watch) -> None:
        self._socket = sock
        self._readers = 0
        self._is_closed = False
        self.begin(watch)

    def begin(self, watch: Watch) -> None:
        """Begin a request."""
        self.watch, self._in_body, self._came, self._payload = watch, False, 0, 0
        if isinstance(inner := getattr(self._socket, "socket", None), Wire):  # TLS within TLS
            inner.begin(watch)
            inner._in_body, inner._payload = True, 1 << 62  # its bytes are TLS records

    def begin_body(self) -> None:
        """Record that the head of the answer has been read."""
        self.watch.expect_body()
        self._in_body, self._came = True, 0

    def received(self, count: int) -> None:
        """Record bytes of the body itself."""
        self._payload += count

    def recv_into(self, buffer: Any) -> int:
        """Read the bytes that have arrived, or wait for some. Raises TooSlow, BadAnswer or OSError."""
        watch = self.watch
        began = time.monotonic()
        self._socket.settimeout(watch.patience())
        try:
            count = self._socket.recv_into(buffer)
        except TimeoutError:
            raise watch.expired() from None
        except OSError as error:
            if (
                type(error).__name__ != "SSLEOFError"
            ):  # by its name: importing ssl takes longer than a request to a registry
                raise
            return 0  # without the end of TLS; the length shows whether the answer is complete
        watch.answering |= count > 0
        self._came += count
        if self._in_body:
            watch.passed(count, time.monotonic() - began)
            if self._came > _FRAMING * self._payload + _MOST_AHEAD:
                raise BadAnswer("it sends more bytes between chunks of the body than in chunks")
        elif self._came > MOST_HEAD:
            raise BadAnswer(f"its headers have more than {MOST_HEAD} bytes")
        return count

    def recv(self, size: int, _flags: int = 0) -> bytes:
        """Read at most `size` bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def sendall(self, data: Any, _flags: int = 0) -> None:
        """Send all of `data`. Raises TooSlow or OSError."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                at += self.send(view[at : at + _PIECE])

    def send(self, data: Any) -> int:
        """Send a part of `data`. Return its size. Raises TooSlow or OSError."""
        began = time.monotonic()
        self._socket.settimeout(self.watch.patience())
        try:
            count = self._socket.send(data)
        except TimeoutError:
            raise self.watch.expired() from None
        self.watch.passed(count, time.monotonic() - began)
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader. The socket stays open until the last reader is closed."""
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def settimeout(self, _seconds: float | None) -> None:
        """Do nothing: the watch sets the timeouts."""

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def has_pending(self) -> bool:
        """Return whether TLS has unread bytes."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and pending() > 0

    def close(self) -> None:
        """Close the socket after its last reader."""
        self._is_closed = True
        if not self._readers:
            with suppress(OSError):
                self._socket.close()

    def release(self) -> None:
        """Record that a reader was closed."""
        self._readers -= 1
        if self._is_closed:
            self.close()


class _Reader(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._wire.release()
