"""The bytes of one connection, under the limits of the request that uses it."""

from __future__ import annotations

import io
import select
import ssl
import time
from contextlib import suppress
from typing import Any, Protocol

from bkrules.web.errors import BadAnswer
from bkrules.web.limits import Limits, Watch

MOST_HEAD = 256 << 10
"""Bytes of an answer before its body, all interim answers included."""
_PIECE = 64 << 10
_FRAMING = 16  # bytes on the wire for each of a body that is sent in chunks
_MOST_AHEAD = 1 << 20  # bytes that may have come before the first of the body has been read


class Socket(Protocol):
    """What a connection needs of a socket, which one of TLS has too."""

    def recv_into(self, buffer: Any, /) -> int: ...
    def send(self, data: Any, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Wire(io.RawIOBase):
    """A socket whose every wait is one that `watch` allows. TLS within TLS takes it for the socket of a proxy."""

    def __init__(self, sock: Socket, limits: Limits) -> None:
        self.socket = sock
        self.watch = Watch(limits)
        self.is_muted = False
        """Whether nothing is read, as at the end."""
        self._in_body = False
        self._came = self._payload = 0

    def begin(self, watch: Watch) -> None:
        """Begin a request."""
        self.watch, self._in_body, self._came, self._payload = watch, False, 0, 0
        if isinstance(inner := getattr(self.socket, "socket", None), Wire):  # TLS within TLS
            inner.begin(watch)
            inner._in_body, inner._payload = True, 1 << 62  # its bytes are those of TLS

    def begin_body(self) -> None:
        """Note that the head of the answer has been read."""
        self._in_body, self._came = True, 0

    def received(self, count: int) -> None:
        """Note bytes of the body itself."""
        self._payload += count

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, or wait for it. Raises TooSlow, BadAnswer or OSError."""
        if self.is_muted:
            return 0
        watch = self.watch
        began = time.monotonic()
        self.socket.settimeout(watch.patience())
        try:
            count = self.socket.recv_into(buffer)
        except TimeoutError:
            raise watch.expired() from None
        except ssl.SSLEOFError:
            return 0  # without TLS's own end; whether the answer was whole is seen by its length
        watch.answering |= count > 0
        self._came += count
        if self._in_body:
            watch.passed(count, time.monotonic() - began)
            if self._came > _FRAMING * self._payload + _MOST_AHEAD:
                raise BadAnswer("it sends more between the parts of the body than parts")
        elif self._came > MOST_HEAD:
            raise BadAnswer(f"its headers have more than {MOST_HEAD} bytes")
        return count

    recv_into = readinto

    def recv(self, size: int, _flags: int = 0) -> bytes:
        """Read at most `size` bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def send(self, data: Any) -> int:
        """Send a part of `data`; how much of it."""
        began = time.monotonic()
        self.socket.settimeout(self.watch.patience())
        try:
            count = self.socket.send(data)
        except TimeoutError:
            raise self.watch.expired() from None
        self.watch.passed(count, time.monotonic() - began)
        return count

    def sendall(self, data: Any, _flags: int = 0) -> None:
        """Send all of `data`."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                at += self.send(view[at : at + _PIECE])

    def settimeout(self, _seconds: float | None) -> None:
        """Do nothing: the watch says how long to wait."""

    def gettimeout(self) -> float | None:
        """Return how long a wait is now."""
        return self.watch.limits.idle

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self.socket.fileno()

    def is_quiet(self) -> bool:
        """Whether the server has neither closed the connection nor sent anything."""
        if isinstance(getattr(self.socket, "socket", None), Wire):
            return not select.select([self.socket], [], [], 0)[0]
        self.socket.settimeout(0)
        try:
            self.socket.recv_into(bytearray(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self.socket.close()
        super().close()


class Stream(io.BufferedReader):
    """What is read of a connection. An answer that has been read does not close it: the next one follows."""

    def close(self) -> None:
        """Do nothing."""

    def is_empty(self) -> bool:
        """Whether nothing is left that has been read from the socket already."""
        wire = self.raw
        assert isinstance(wire, Wire)
        wire.is_muted = True
        try:
            return not self.peek(1)
        finally:
            wire.is_muted = False
