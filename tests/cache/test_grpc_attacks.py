"""A gRPC cache that attacks its clients: by time, by size, and with frames and messages that no server should send."""

from __future__ import annotations

import gzip
import resource
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from grpc_servers import ABILITIES, GrpcServer, grpc_server
from raw_grpc import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    SETTINGS,
    Attack,
    RawServer,
    block,
    end,
    frame,
    message,
    raw_server,
    start,
)
from remote_machines import TOOL, maker

from bkrules.cache import grpc_calls, zstd
from bkrules.cache.grpc_store import GrpcStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest, reapi

GIB = 1 << 30
ROOM = 256 << 10  # KiB that an attack may cost
Send = Callable[[bytes], None]


def forever(content: Callable[[int], bytes]) -> Attack:
    def attack(send: Send, stream: int, server: RawServer) -> None:
        while not server.stopped.is_set():
            send(content(stream))

    return attack


def once(content: Callable[[int], bytes]) -> Attack:
    return lambda send, stream, _server: send(content(stream))


def headers_without_end(send: Send, stream: int, server: RawServer) -> None:
    send(frame(HEADERS, stream, block((":status", b"200"))))
    forever(lambda number: frame(CONTINUATION, number, block(("a", bytes(10_000)))))(send, stream, server)


def huge_trailers(stream: int) -> bytes:
    content = block(("grpc-status", b"0"), ("a", b"x" * (1 << 20)))
    parts = [content[at : at + (1 << 14)] for at in range(0, len(content), 1 << 14)]
    frames = [frame(CONTINUATION, stream, part, 4 if part is parts[-1] else 0) for part in parts[1:]]
    return start(stream) + message(stream, b"") + frame(HEADERS, stream, parts[0], 1) + b"".join(frames)


def bomb(stream: int) -> bytes:
    """A message of 64 KiB that unpacks to 48 MiB."""
    packed = gzip.compress(bytes(48 << 20))
    return start(stream, ("grpc-encoding", b"gzip")) + message(stream, packed, compressed=True) + end(stream)


ATTACKS: dict[str, Attack] = {
    "a message of 1 GiB": once(lambda stream: start(stream) + message(stream, bytes(1 << 15), size=GIB)),
    "a message that never ends": once(lambda stream: start(stream) + message(stream, b"x", size=1000)),
    "bytes without end": forever(lambda stream: start(stream) + message(stream, bytes(1 << 15), size=1 << 22)),
    "a packed message that is too large": once(bomb),
    "packed by nothing": once(lambda stream: start(stream) + message(stream, b"abc", compressed=True) + end(stream)),
    "headers without end": headers_without_end,
    "trailers of a MiB": once(huge_trailers),
    "a status of 99": once(
        lambda stream: start(stream) + end(stream, ("grpc-message", b"%ff%fe%1b[31m"), status=b"99")
    ),
    "a status that is no number": once(lambda stream: start(stream) + end(stream, status=b"abc")),
    "no message": once(lambda stream: start(stream) + end(stream)),
    "no end": once(lambda stream: start(stream)),
    "two messages": once(lambda stream: start(stream) + message(stream, b"") * 2 + end(stream)),
    "an answer to nobody": once(lambda stream: start(stream + 1000) + end(stream + 1000)),
    "a frame of 16 MiB": once(lambda stream: b"\xff\xff\xff" + frame(DATA, stream)[3:]),
    "settings without end": forever(lambda _stream: frame(SETTINGS, 0)),
    "pings without end": forever(lambda _stream: frame(PING, 0, bytes(8))),
    "go away": once(lambda _stream: frame(GOAWAY, 0, bytes(8))),
    "another protocol": once(lambda _stream: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str) -> None:
    with raw_server(ATTACKS[attack]) as server:
        one = maker(tmp_path, server.address)()
        assert one.ask() is None
        assert one.warnings == []
        monkeypatch.setattr(grpc_calls, "IDLE", 0.3)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert [one.ask() for _ in range(3)] == [None] * 3
    [warning] = one.warnings
    assert warning.isprintable()
    assert server.requests > 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + ROOM


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with grpc_server() as made:
        yield made


def store(server: GrpcServer, warnings: list[str]) -> GrpcStore:
    return GrpcStore(RemoteOptions(server.address), warnings.append)


MILLION = 1_000_000
ANSWERS = {
    "GetActionResult": b"\x12\x00",
    "BatchReadBlobs": b"\x0a\x00",
    "BatchUpdateBlobs": b"\x0a\x00",
    "FindMissingBlobs": b"\x12\x00",
    "GetCapabilities": bytes.fromhex("0a020a00"),
}


@pytest.mark.parametrize("method", ANSWERS)
def test_a_million_answers_to_one_question_are_not_parsed(tmp_path: Path, server: GrpcServer, method: str) -> None:
    """Each would be an object of hundreds of bytes, in each of sixteen threads."""
    make = maker(tmp_path, server.address)
    if "Read" in method or "Get" in method:
        make().put()
    server.answer = lambda asked, _message, _context: ANSWERS[method] * MILLION if asked == method else None
    one = make()
    tracemalloc.start()
    try:
        assert one.ask() is None
        one.put()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert len(one.warnings) == 1
    assert "contains too many messages" in one.warnings[0]


def test_a_compressed_stream_without_a_byte_is_left_at_its_size(server: GrpcServer) -> None:
    library = zstd.library()
    assert library is not None
    server.abilities["cache_capabilities"] = {**ABILITIES["cache_capabilities"], "supported_compressors": [1]}
    nothing = bytes.fromhex("502a4d18") + (1 << 16).to_bytes(4, "little") + bytes(1 << 16)  # a frame that is skipped
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while not server.stopped.is_set():
            sent.append(len(nothing))
            yield reapi.encode("ReadResponse", {"data": nothing})

    server.answer = lambda method, _message, _context: endless() if method == "Read" else None
    warnings: list[str] = []

    found = store(server, warnings).blobs([digest.of_bytes(TOOL)], lambda _name, chunks: deque(chunks, 0).clear())

    assert found == set()
    assert f"bytes for a blob of {len(TOOL)}" in warnings[0]
    assert sum(sent) < 64 << 20
