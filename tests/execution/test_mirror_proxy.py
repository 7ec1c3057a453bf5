"""The proxy between cells and the registry, with real sockets on both sides."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from bkrules.mirror.connections import Side
from bkrules.mirror.faults import MirrorFaults
from bkrules.mirror.http1 import PendingRequest, RequestParser, ResponseParser
from bkrules.mirror.proxy import MOST_CONNECTIONS, MirrorProxy
from bkrules.mirror.record import CellMirror

BLOB = os.urandom(3_000_000)
RAW = {
    "until-close": b"HTTP/1.1 200 OK\r\n\r\nno length",
    "early-hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "both": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "one-length-twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "negative": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "huge": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    "list": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "plus": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "digits": "HTTP/1.1 200 OK\r\nContent-Length: \xb3\r\n\r\nabc".encode("latin-1"),
    "gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "old-chunked": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare-line-feeds": b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "space-before-colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "no-status": b"HTTP/1.1 OK\r\nContent-Length: 3\r\n\r\nabc",
    "other-version": b"HTTP/2 200\r\nContent-Length: 3\r\n\r\nabc",
    "endless-head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "endless-chunk-line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
    "endless-trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 30_000,
    "negative-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "huge-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nabc",
    "long-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
    "chunk-line-feed": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "bad-trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno field\r\n\r\n",
    "two-answers": b"HTTP/1.1 204 No Content\r\n\r\n" * 2,
    "body-of-304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nanything",
}
"""Answers byte by byte, by their names. Those after the second cannot be counted."""
UNCOUNTABLE = list(RAW)[2:]


class Registry(BaseHTTPRequestHandler):
    """As much of a registry as moves bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Transfer-Encoding"):
            assert self.rfile.read(5) == b"0\r\n\r\n"
        if self.path.startswith("/chunked"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for begin in range(0, len(BLOB), 1_000_000):
                piece = BLOB[begin : begin + 1_000_000]
                self.wfile.write(b"%x;name=value\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\nTrailer: x\r\n\r\n")
            return
        if self.path.startswith("/raw/"):
            self.wfile.write(RAW[self.path.removeprefix("/raw/")])
            self.close_connection = "until-close" in self.path
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


class Server(ThreadingUnixStreamServer):
    """One whose clients may go away at any time."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "registry.sock")
    server = Server(path, Registry)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy() -> Iterator[MirrorProxy]:
    proxy = MirrorProxy()
    yield proxy
    proxy.close()


@pytest.fixture
def cell(proxy: MirrorProxy, registry: str) -> Callable[..., tuple[int, int]]:
    """Open a listener as a cell would, with faults or without; return its port, and the proxy's handle of it."""

    def open_one(**faults: object) -> tuple[int, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        return port, proxy.add(listener.detach(), registry, MirrorFaults.read(faults) if faults else None)

    return open_one


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request(method, path, headers=headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read()


def counts(port: int) -> list[tuple[str, str, int, int]]:
    document = json.loads(get(port, "/_bk/requests")[1])
    assert document["uncounted"] == []
    return [tuple(one.values()) for one in document["requests"]]


def uncounted(port: int) -> str:
    return "; ".join(json.loads(get(port, "/_bk/requests")[1])["uncounted"])


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes; all that comes back until the connection ends."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, suppress(ConnectionError):
        connection.sendall(data)
        while piece := connection.recv(1 << 16):
            received += piece
    return bytes(received)


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


def test_each_answer_of_a_connection_is_counted_whatever_came_before_it(cell: Callable[[], tuple[int, int]]) -> None:
    """After a chunked one, as after all others: else a whole pull on that connection would look lazy."""
    port, _ = cell()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for method, path in (
        ("GET", "/chunked"),
        ("HEAD", "/x"),
        ("GET", "/raw/early-hints"),
        ("GET", "/chunked"),
        ("GET", "/x"),
    ):
        connection.request(method, path)
        assert connection.getresponse().read() in (BLOB, b"", b"ok")
    connection.close()

    assert [(path, size) for _, path, _, size in counts(port)] == [
        ("/chunked", len(BLOB)),
        ("/x", 0),
        ("/raw/early-hints", 2),
        ("/chunked", len(BLOB)),
        ("/x", len(BLOB)),
    ]


def test_a_chunked_request_is_followed_by_another(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    data = b"GET /x HTTP/1.1\r\nRange: bytes=0-0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    exchange(port, data + b"GET /raw/until-close HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert counts(port)[0] == ("GET", "/x", 206, 1)


def test_requests_may_be_pipelined(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    exchange(port, b"GET /chunked HTTP/1.1\r\n\r\nHEAD /x HTTP/1.1\r\n\r\nGET /raw/until-close HTTP/1.1\r\n\r\n")

    assert counts(port) == [
        ("GET", "/chunked", 200, len(BLOB)),
        ("HEAD", "/x", 200, 0),
        ("GET", "/raw/until-close", 200, 9),
    ]


def test_a_whole_url_is_counted_as_its_path(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    exchange(port, b"GET http://127.0.0.1:5000/x?a=b HTTP/1.1\r\nRange: bytes=0-0\r\nConnection: close\r\n\r\n")

    assert counts(port) == [("GET", "/x", 206, 1)]


def test_a_body_that_ends_early_counts_as_what_came(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    RAW["until-close-early"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
    exchange(port, b"GET /raw/until-close-early HTTP/1.1\r\n\r\n")

    assert counts(port) == [("GET", "/raw/until-close-early", 200, 3)]


def test_a_request_without_an_answer_is_counted(cell: Callable[[], tuple[int, int]]) -> None:
    port, _ = cell()
    RAW["until-close-silent"] = b""
    exchange(port, b"GET /raw/until-close-silent HTTP/1.1\r\n\r\n")

    assert counts(port) == [("GET", "/raw/until-close-silent", 0, 0)]


@pytest.mark.parametrize("name", UNCOUNTABLE)
def test_an_answer_that_cannot_be_counted_passes_and_is_said(cell: Callable[[], tuple[int, int]], name: str) -> None:
    port, _ = cell()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET /raw/{name} HTTP/1.1\r\n\r\n".encode())
        received = bytearray()
        while len(received) < len(RAW[name]):
            received += connection.recv(1 << 16)
        assert received == RAW[name]
        connection.sendall(b"GET /x HTTP/1.1\r\nRange: bytes=0-0\r\n\r\n")
        assert connection.recv(1 << 16)
    assert uncounted(port)
    assert get(port, "/x", Range="bytes=0-3") == (206, BLOB[:4])
    assert uncounted(port).count(";") == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"\r\n\r\n",
        b"GET /x HTTP/1.1\nHost: x\n\n",
        b"GET /x HTTP/1.1\r\nHost: x\n\r\n",
        b"GET /x  HTTP/1.1\r\n\r\n",
        b"GET /x HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /x HTTP/1.1\r\nContent-Length : 0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nX: \0\r\n\r\n",
        b"GET /x HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    ],
)
def test_a_request_that_cannot_be_read_for_certain_is_refused(
    cell: Callable[[], tuple[int, int]], request_: bytes
) -> None:
    port, _ = cell()
    answer = exchange(port, request_)

    assert not answer or answer.startswith(
        b"HTTP/1.1 400 "
    )  # a client that is still sending may see a reset connection
    assert "refused" in uncounted(port)
    assert get(port, "/x", Range="bytes=0-3") == (206, BLOB[:4])


def test_a_greeting_of_tls_is_refused_and_leaves_the_count_whole(cell: Callable[[], tuple[int, int]]) -> None:
    """A client that may fall back to HTTP begins with one, and it may hold a line feed."""
    port, _ = cell()
    answer = exchange(port, b"\x16\x03\x01\x00\x05\x01\x00\x0a\n\x00")

    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert counts(port) == []
    assert get(port, "/x", Range="bytes=0-3") == (206, BLOB[:4])
    assert counts(port) == [("GET", "/x", 206, 4)]


@pytest.mark.parametrize(
    "before", [b"GET /x HTTP/1.1\r\n\r\n", b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET "]
)
def test_the_byte_of_tls_within_a_connection_is_in_doubt(cell: Callable[[], tuple[int, int]], before: bytes) -> None:
    """A request went on to the registry, or may have begun, so what follows it counts."""
    port, _ = cell()
    exchange(port, before + b"\x16\x03\x01\n")

    assert "refused" in uncounted(port)


def test_a_record_has_a_limit_and_says_so(cell: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bkrules.mirror.record.MOST_RECORD", 1000)
    port, _ = cell()
    for _ in range(4):
        get(port, "/x", "HEAD")

    assert "has reached its limit" in uncounted(port)


@pytest.mark.parametrize("after", [1, 100, 999_999, 1_000_001, 2_999_999])
def test_a_connection_is_reset_within_a_chunked_body(cell: Callable[..., tuple[int, int]], after: int) -> None:
    port, _ = cell(reset_after=after, times=1)
    exchange(port, b"GET /chunked HTTP/1.1\r\n\r\n")

    assert get(port, "/chunked") == (200, BLOB)
    assert [size for _, _, _, size in counts(port)] == [after, len(BLOB)]


def test_a_chunked_body_may_be_too_short_to_be_cut(cell: Callable[..., tuple[int, int]]) -> None:
    port, _ = cell(reset_after=len(BLOB), times=1)

    assert get(port, "/chunked") == (200, BLOB)
    assert [size for _, _, _, size in counts(port)] == [len(BLOB)]


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


def test_a_removed_cell_is_closed_and_others_live_on(proxy: MirrorProxy, cell: Callable[[], tuple[int, int]]) -> None:
    (gone, handle), (other, _) = cell(), cell()
    waiting = socket.create_connection(("127.0.0.1", gone), timeout=20)
    waiting.sendall(b"GET /x HTTP/1.1\r\n")

    proxy.remove(handle)

    with suppress(ConnectionResetError):
        assert waiting.recv(1) == b""
    waiting.close()
    with pytest.raises(ConnectionError):
        get(gone, "/x")
    assert get(other, "/x", Range="bytes=0-3") == (206, BLOB[:4])


def test_an_event_of_a_connection_before_ends_no_other() -> None:
    """It may wait in the same list of events as the connection that has got its descriptor, of which there is nothing to read."""
    proxy = MirrorProxy()
    (near, client), (far, registry_) = socket.socketpair(), socket.socketpair()
    with near, client, far, registry_:
        for one in (near, far):
            one.setblocking(False)
        unanswered: deque[PendingRequest] = deque()
        cell = CellMirror("", near)
        end = Side(near, RequestParser(), unanswered, cell)
        end.peer = Side(far, ResponseParser(unanswered, cell), unanswered, cell, peer=end)

        proxy._serve(end, select.EPOLLHUP)

        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        proxy._serve(end, select.EPOLLIN)
        assert registry_.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    proxy.close()


def test_a_registry_that_is_gone_ends_the_connection(proxy: MirrorProxy, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    proxy.add(listener.detach(), str(tmp_path / "nobody.sock"))

    with pytest.raises(ConnectionError):
        get(port, "/x")


def test_a_cell_that_takes_all_descriptors_is_refused_and_others_live_on(
    proxy: MirrorProxy, cell: Callable[[], tuple[int, int]], tmp_path: Path
) -> None:
    other, _ = cell()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen(200)
        listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        port = listener.getsockname()[1]
        proxy.add(listener.detach(), str(tmp_path / "silent.sock"))
        with ExitStack() as opened:
            clients = [opened.enter_context(socket.socket()) for _ in range(100)]
            opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(client.fileno() for client in clients) + 40, hard))
            for client in clients:
                client.settimeout(20)
                client.connect(("127.0.0.1", port))
            with suppress(ConnectionResetError):
                assert clients[-1].recv(1) == b""

        assert "no file descriptor left" in uncounted(port)
    assert get(other, "/x", Range="bytes=0-3") == (206, BLOB[:4])


def test_a_cell_has_a_limit_of_connections_and_others_live_on(
    proxy: MirrorProxy, cell: Callable[[], tuple[int, int]]
) -> None:
    (port, handle), (other, others_handle) = cell(), cell()
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.socket()) for _ in range(MOST_CONNECTIONS + 1)]
        for client in clients:
            client.settimeout(20)
            client.connect(("127.0.0.1", port))
        with suppress(ConnectionResetError):
            assert clients[-1].recv(1) == b""

        assert get(other, "/x", Range="bytes=0-3") == (206, BLOB[:4])
        assert proxy.crowded(handle) == "the cell had 256 connections to its mirror open and wanted more"
        assert proxy.crowded(handle) == proxy.crowded(others_handle) == proxy.crowded(-1) == ""
    while "wanted more" not in uncounted_or_refused(port):  # until the proxy has seen the ends of the others
        proxy.crowded(handle)
    assert get(port, "/x", Range="bytes=0-3") == (206, BLOB[:4])


def uncounted_or_refused(port: int) -> str:
    try:
        return uncounted(port)
    except (ConnectionError, http.client.HTTPException) as error:
        return type(error).__name__


def test_the_proxy_answers_a_refused_request(cell: Callable[..., tuple[int, int]]) -> None:
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


def test_faults_concern_the_paths_that_they_name(proxy: MirrorProxy, cell: Callable[..., tuple[int, int]]) -> None:
    port, handle = cell(status=503, paths="*/manifests/*")
    assert get(port, "/v2/a/blobs/x", "HEAD")[0] == 200
    assert not proxy.reached(handle)

    assert [get(port, f"/v2/a/{kind}/x", "HEAD")[0] for kind in ("blobs", "manifests", "blobs")] == [200, 503, 200]
    assert proxy.reached(handle)


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
    assert get(port, "/chunked") == (200, BLOB)


def test_who_goes_away_while_its_answer_is_held_back_is_forgotten(
    proxy: MirrorProxy, cell: Callable[..., tuple[int, int]]
) -> None:
    (slow, handle), (other, _) = cell(delay=0.1), cell()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", slow)) as gone:
            gone.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    with socket.create_connection(("127.0.0.1", slow)) as waiting:
        waiting.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        proxy.remove(handle)
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
