"""buildkitd's API as far as a reset of a shared worker needs it, without a process: each buildctl costs 8 ms of CPU.

A call is one stream of HTTP/2 (RFC 9113) on a new connection to the daemon's Unix socket. No header is decoded, since the bytes
by which a Go server reports success are known. After any other answer, the caller runs buildctl, which also explains failures.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bkrules.plugin.worker import Backend

_UNIX = "unix://"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_WIDEST = (1 << 31) - 1
SUCCESS = b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010"
"""grpc-status: 0, in HPACK: the name in Huffman's code, the value as it is."""
_MOST = 1 << 26
_ALL = b"\x10\x01"
_EARLY_EXIT = b"\x18\x01"
_DELETE = b"\x18\x01"
_RECORD, _REF = 2, 1


class Unanswered(Exception):
    """The daemon has not answered a call with success, or in an unknown way."""


@contextmanager
def _understood() -> Iterator[None]:
    """Raise Unanswered for the errors of a call, and of the reading of its answer."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Unanswered(str(error)) from error


@_understood()
def prune(backend: Backend, seconds: float) -> None:
    """Remove the build cache and the history, as `buildctl prune --all` and `prune-histories` do. Raises Unanswered.

    Those do not remove builds that a test has pinned, and this does.
    """
    _call(backend, "Prune", _ALL, seconds)
    for reference in history(backend, seconds):
        _call(backend, "UpdateBuildHistory", b"\x0a" + _sized(reference) + _DELETE, seconds)


@_understood()
def usage(backend: Backend, seconds: float) -> list[bytes]:
    """Return the encoded UsageRecords of the build cache. Raises Unanswered."""
    (answer,) = _call(backend, "DiskUsage", b"", seconds)
    return sorted(record for _, record in _fields(answer))


@_understood()
def history(backend: Backend, seconds: float) -> list[bytes]:
    """Return the references of the builds in the history. Raises Unanswered."""
    events = _call(backend, "ListenBuildHistory", _EARLY_EXIT, seconds)
    return sorted(_field(_field(event, _RECORD), _REF) for event in events)


def _call(backend: Backend, method: str, request: bytes, seconds: float) -> list[bytes]:
    """Return the messages that a call of the daemon's Control service answers. Raises OSError and ValueError."""
    if not backend.address.startswith(_UNIX) or backend.tls.flags:
        raise ValueError(f"{backend.address} is no Unix socket")
    path = f"/moby.buildkit.v1.Control/{method}".encode()
    # POST, http, the path, localhost, application/grpc, and trailers: literals, or indices of HPACK's static table.
    headers = b"\x83\x86\x04" + _sized(path) + b"\x01" + _sized(b"localhost")
    headers += b"\x0f\x10" + _sized(b"application/grpc") + b"\x00" + _sized(b"te") + _sized(b"trailers")
    first = [
        _PREFACE,
        _frame(_SETTINGS, 0, 0, b"\x00\x04" + _WIDEST.to_bytes(4)),
        _frame(_WINDOW_UPDATE, 0, 0, (_WIDEST - 65535).to_bytes(4)),
        _frame(_HEADERS, _END_HEADERS, 1, headers),
        _frame(_DATA, _END_STREAM, 1, b"\x00" + len(request).to_bytes(4) + request),
    ]
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(seconds)
        channel.connect(backend.address.removeprefix(_UNIX))
        channel.sendall(b"".join(first))
        return list(_messages(_answer(channel)))


def _answer(channel: socket.socket) -> bytes:
    """Return the data of the stream. Raises OSError, and ValueError for any end but success."""
    data = bytearray()
    with channel.makefile("rb") as stream:
        while len(head := stream.read(9)) == 9 and len(data) < _MOST:
            kind, flags = head[3], head[4]
            payload = stream.read(int.from_bytes(head[:3]))
            if kind == _DATA and not flags & _PADDED:
                data += payload
            elif kind == _HEADERS and flags & _END_STREAM and SUCCESS in payload:
                return bytes(data)
            elif kind in (_SETTINGS, _PING):
                if not flags & _ACK:
                    channel.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            elif kind != _WINDOW_UPDATE and (kind != _HEADERS or flags & _END_STREAM):
                raise ValueError(f"a frame of type {kind} with the flags {flags}")
    raise ValueError("the connection was closed")


def _messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages of gRPC. Raises ValueError for a compressed one, and for half a one."""
    at = 0
    while at < len(data):
        is_compressed, end = data[at], at + 5 + int.from_bytes(data[at + 1 : at + 5])
        if is_compressed or len(data) < end:
            raise ValueError("a message is compressed, or not whole")
        yield data[at + 5 : end]
        at = end


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _sized(text: bytes) -> bytes:
    """Return a string with its length, which is the same in HPACK and in protobuf below 127 bytes. Raises ValueError."""
    if len(text) > 126:
        raise ValueError(f"{len(text)} bytes are too many")
    return bytes((len(text),)) + text


def _field(message: bytes, number: int) -> bytes:
    """Return the first field with a number, which holds bytes. Raises ValueError when there is none."""
    for found, value in _fields(message):
        if found == number:
            return value
    raise ValueError(f"a message has no field {number}")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields that hold bytes, by number. Raises ValueError for any other but a number."""
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        value, at = _number(message, at)
        if key & 7 == 2 and at + value <= len(message):
            yield key >> 3, message[at : at + value]
            at += value
        elif key & 7:
            raise ValueError(f"a field of type {key & 7} is unknown, or not whole")


def _number(message: bytes, at: int) -> tuple[int, int]:
    """Return the varint at a place, and the place after it. Raises ValueError."""
    number = shift = 0
    while at < len(message):
        number |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return number, at
    raise ValueError("a message is not whole")
