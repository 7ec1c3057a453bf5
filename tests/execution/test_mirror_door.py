"""The door between cells and the registry, with real sockets on both sides."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from bkrules.execution.mirror_door import MirrorDoor
from bkrules.mirror_faults import MirrorFaults

BLOB = os.urandom(3_000_000)


class Registry(BaseHTTPRequestHandler):
    """As much of a registry as moves bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/chunked"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")
            return
        wanted = self.headers.get("Range")
        body = BLOB
        if wanted:
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            body = BLOB[first : last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "registry.sock")
    server = ThreadingUnixStreamServer(path, Registry)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def door() -> Iterator[MirrorDoor]:
    door = MirrorDoor()
    yield door
    door.close()


@pytest.fixture
def cell(door: MirrorDoor, registry: str) -> Callable[..., tuple[int, int]]:
    """Opens a listener as a cell would, with faults or without; its port, and the door's handle of it."""

    def open_one(**faults: object) -> tuple[int, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        return port, door.add(listener.detach(), registry, MirrorFaults.read(faults) if faults else None)

    return open_one


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request(method, path, headers=headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read()


def counts(port: int) -> list[tuple[str, str, int, int]]:
    return [tuple(one.values()) for one in json.loads(get(port, "/_bk/requests")[1])]


def test_bytes_pass_and_are_counted(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()

    assert get(port, "/v2/a/blobs/x?ns=docker.io") == (200, BLOB)
    assert get(port, "/v2/a/blobs/x", Range="bytes=10-19") == (206, BLOB[10:20])
    assert get(port, "/v2/a/blobs/x", "HEAD") == (200, b"")

    assert counts(port) == [
        ("GET", "/v2/a/blobs/x", 200, len(BLOB)),
        ("GET", "/v2/a/blobs/x", 206, 10),
        ("HEAD", "/v2/a/blobs/x", 200, 0),
    ]


def test_a_connection_may_carry_many_requests(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for number in range(20):
        connection.request("POST" if number % 2 else "GET", f"/{number}", body=b"x" * 1000 if number % 2 else None)
        connection.getresponse().read()
    connection.close()

    seen = counts(port)

    assert [path for _, path, _, _ in seen] == [f"/{number}" for number in range(20)]
    assert {status for method, _, status, _ in seen if method == "POST"} == {405}


def test_heads_may_arrive_byte_by_byte(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    with socket.create_connection(("127.0.0.1", port)) as slow:
        for byte in b"GET /slow HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\nConnection: close\r\n\r\n":
            slow.sendall(bytes([byte]))
        while slow.recv(4096):
            continue

    assert counts(port) == [("GET", "/slow", 206, 1)]


def test_a_chunked_answer_passes(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()

    assert get(port, "/chunked") == (200, b"hello")


def test_cells_are_counted_apart(cell: Callable[[], tuple[int, int]]) -> None:
    (one, _), (other, _) = cell(), cell()

    get(one, "/one", Range="bytes=0-0")
    threads = [threading.Thread(target=get, args=(other, f"/other/{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts(one) == [("GET", "/one", 206, 1)]
    assert sorted(path for _, path, _, _ in counts(other)) == [f"/other/{number}" for number in range(8)]
    assert {size for _, _, _, size in counts(other)} == {len(BLOB)}


def test_a_slow_reader_gets_everything(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        slow.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = bytearray()
        while data := slow.recv(1500):
            received += data

    assert received.endswith(BLOB)


def test_a_removed_cell_is_closed_and_others_live_on(door: MirrorDoor, cell: Callable[[], tuple[int, int]]) -> None:
    (gone, handle), (other, _) = cell(), cell()
    waiting = socket.create_connection(("127.0.0.1", gone), timeout=20)
    waiting.sendall(b"GET /x HTTP/1.1\r\n")

    door.remove(handle)

    with suppress(ConnectionResetError):
        assert waiting.recv(1) == b""
    waiting.close()
    with pytest.raises(ConnectionError):
        get(gone, "/x")
    assert get(other, "/x", Range="bytes=0-3") == (206, BLOB[:4])


def test_what_is_not_http_ends_its_connection_only(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as odd:
        odd.sendall(b"nonsense\r\n\r\n")
        assert odd.recv(1) == b""

    assert get(port, "/x", Range="bytes=0-3") == (206, BLOB[:4])


def test_a_registry_that_is_gone_ends_the_connection(door: MirrorDoor, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    door.add(listener.detach(), str(tmp_path / "nobody.sock"))

    with pytest.raises(ConnectionError):
        get(port, "/x")


def test_a_refused_request_is_answered_at_the_door(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(status=429, retry_after=3, times=1, paths="*/blobs/*")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/v2/a/blobs/x?ns=docker.io")
    answer = connection.getresponse()

    assert (answer.status, answer.reason, answer.headers["Retry-After"], answer.read()) == (
        429,
        "Too Many Requests",
        "3",
        b"",
    )
    connection.close()
    assert get(port, "/v2/a/blobs/x", Range="bytes=0-3") == (206, BLOB[:4])
    assert counts(port) == [("GET", "/v2/a/blobs/x", 429, 0), ("GET", "/v2/a/blobs/x", 206, 4)]


def test_faults_concern_the_paths_that_they_name(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(status=503, paths="*/manifests/*")

    assert [get(port, f"/v2/a/{kind}/x", "HEAD")[0] for kind in ("blobs", "manifests", "blobs")] == [200, 503, 200]


@pytest.mark.parametrize("after", [1, 100, 70_000, 1_000_000])
def test_a_connection_is_reset_within_a_body(cell: Callable[..., tuple[int, int]], after: int) -> None:
    port, _ = cell(reset_after=after, times=1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/x")
    answer = connection.getresponse()
    assert answer.length == len(BLOB)
    received = bytearray()
    with pytest.raises(ConnectionResetError):
        while data := answer.fp.read1():
            received += data

    answer.close()
    connection.close()
    assert BLOB[:after].startswith(received)  # what was still under way is lost
    assert get(port, "/x") == (200, BLOB)
    assert [size for _, _, _, size in counts(port)] == [after, len(BLOB)]


def test_a_short_body_ends_before_it_would_be_reset(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(reset_after=11, times=1)

    assert get(port, "/x", Range="bytes=0-9") == (206, BLOB[:10])
    with pytest.raises(ConnectionResetError):
        get(port, "/x", Range="bytes=0-19")
    assert get(port, "/x", Range="bytes=0-19") == (206, BLOB[:20])


def test_faults_that_begin_again_are_counted_anew(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(status=500, times=1)

    assert [get(port, "/x", "HEAD")[0] for _ in range(2)] == [500, 200]
    get(port, "/_bk/faults/begin")
    assert [get(port, "/x", "HEAD")[0] for _ in range(2)] == [500, 200]


def test_a_mirror_that_is_gone_resets_each_request_until_it_is_back(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(reset_after=0, later=True)
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    kept.request("GET", "/before", headers={"Range": "bytes=0-0"})
    assert kept.getresponse().read() == BLOB[:1]

    assert get(port, "/_bk/faults/begin") == (200, b"")
    with pytest.raises(ConnectionError):
        kept.request("GET", "/during")
        kept.getresponse()
    kept.close()
    with pytest.raises(ConnectionError):
        get(port, "/during")
    assert get(port, "/_bk/faults/end") == (200, b"")

    assert get(port, "/after", Range="bytes=0-0") == (206, BLOB[:1])
    assert [(path, status) for _, path, status, _ in counts(port)] == [
        ("/before", 206),
        ("/during", 0),
        ("/during", 0),
        ("/after", 206),
    ]


def test_a_cell_without_faults_has_none_to_begin(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell()

    assert get(port, "/_bk/faults/begin") == (404, b"")


def test_a_delayed_answer_comes_whole_and_late(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(delay=0.2, times=1)
    began = time.monotonic()
    assert get(port, "/x") == (200, BLOB)
    assert time.monotonic() - began >= 0.2
    assert get(port, "/chunked") == (200, b"hello")


def test_who_goes_away_while_its_answer_is_held_back_is_forgotten(
    door: MirrorDoor, cell: Callable[..., tuple[int, int]]
) -> None:
    (slow, handle), (other, _) = cell(delay=0.1), cell()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", slow)) as gone:
            gone.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    with socket.create_connection(("127.0.0.1", slow)) as waiting:
        waiting.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        door.remove(handle)
        with suppress(ConnectionResetError):
            assert waiting.recv(1) == b""
    time.sleep(0.15)  # until what was held back would have gone on

    assert get(other, "/x", Range="bytes=0-0") == (206, BLOB[:1])


def test_all_answers_of_a_cell_share_its_rate(cell: Callable[..., tuple[int, int]]) -> None:
    """Two whole bodies, and twenty short ones that each fit into one read."""
    port, _ = cell(bytes_per_second=20_000_000)
    began = time.monotonic()
    threads = [threading.Thread(target=get, args=(port, "/x")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began > 0.2
    began = time.monotonic()
    for _ in range(20):
        assert get(port, "/x", Range="bytes=0-199999") == (206, BLOB[:200_000])
    assert time.monotonic() - began > 0.15
