"""A remote cache that attacks its clients: by time, by size, and for credentials."""

from __future__ import annotations

import collections
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import Peer, drip, peer, reply

from bkrules.cache.http_store import HttpStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest

KEY = digest.of_bytes(b"an action")
BLOB = b"x" * 100_000
Answer = Callable[[socket.socket, str], object]


def store(server: Peer, warnings: list[str], timeout: float = 0.6, **options: object) -> HttpStore:
    return HttpStore(RemoteOptions(server.url, timeout=timeout, **options), warnings.append)  # type: ignore[arg-type]


def continues(connection: socket.socket, _head: str) -> bool:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def continues_slowly(connection: socket.socket, _head: str) -> bool:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.02)


SLOW: dict[str, Answer] = {
    "status": lambda connection, _head: drip(connection, b"HTTP/1.1 200 " + BLOB),
    "headers": lambda connection, _head: drip(connection, b"HTTP/1.1 200 OK\r\nA: " + BLOB),
    "body": lambda connection, _head: drip(connection, reply(200, BLOB)),
    "chunks": lambda connection, _head: drip(
        connection, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 9999
    ),
    "100 Continue": continues,
    "100 Continue, slowly": continues_slowly,
    "the body of an error": lambda connection, _head: drip(connection, reply(500, BLOB)),
    "the body of a miss": lambda connection, _head: drip(connection, reply(404, b"x" * 1000)),
}


@pytest.mark.parametrize("slow", SLOW)
def test_a_request_ends_with_its_timeout(slow: str) -> None:
    """The bytes come every 20 ms, so that only the limit of the whole request can end it."""
    warnings: list[str] = []
    with peer(SLOW[slow]) as server:
        asked = store(server, warnings)
        assert asked.result(KEY) is None
        assert not asked.blob(digest.of_bytes(BLOB), lambda _name, chunks: collections.deque(chunks, 0).clear())
    assert len(warnings) == 1


def test_an_upload_that_nobody_reads_ends_with_its_timeout(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    warnings: list[str] = []

    def answer(connection: socket.socket, _head: str) -> bool:
        while connection.recv(1):
            time.sleep(0.01)
        return True

    with peer(answer) as server:
        assert not store(server, warnings).put_blob(digest.of_file(path), str(path))
    assert "not there after 0.6 s" in warnings[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_header_goes_to_another_server(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the request, whatever `~/.netrc` has for that server."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(netrc))
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    with peer(lambda connection, _head: connection.sendall(reply())) as other:
        with peer(lambda connection, _head: connection.sendall(reply(status, Location=other.url))) as server:
            warnings: list[str] = []
            asked = store(server, warnings, headers=(("X-Token", "s3cr3t"),))
            assert asked.result(KEY) is None
            assert not asked.has(digest.of_bytes(BLOB))
            asked.put_blob(digest.of_bytes(BLOB), str(path))
            assert server.header("X-Token")[0] == "s3cr3t"
        assert other.heads == []
    assert f"status {status}" in warnings[0]


def test_netrc_is_for_the_host_of_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    for text, expected in {
        "machine 127.0.0.1 login me password x": ["Basic bWU6eA=="],
        "machine other login me password x": [],
        "machine 127.0.0.1 login": [],
        "\0": [],
    }.items():
        netrc.write_text(text)
        with peer(lambda connection, _head: connection.sendall(reply(404))) as server:
            assert store(server, []).result(KEY) is None
            assert server.header("Authorization") == expected


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X\n", "a"), ("", "a"), ("X:", "a"), ("X", "\0")])
def test_a_header_that_is_none_is_a_fault(header: tuple[str, str]) -> None:
    warnings: list[str] = []
    with peer(lambda connection, _head: connection.sendall(reply(404))) as server:
        assert store(server, warnings, headers=(header,)).result(KEY) is None
        assert server.heads == []
    assert "cannot be sent" in warnings[0]
