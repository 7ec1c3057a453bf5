"""A server of Bazel's HTTP cache protocol in this process, which can be told to be wrong."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_FIRST_PORT, _FEW_PORTS = 10_000, 5_000


@dataclass
class CacheServer:
    """What the server holds, by path, and the requests so far. `answer` may answer a request itself; then it returns True."""

    address: str = ""
    held: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    answer: Callable[[Handler], bool] = lambda _handler: False

    def count(self, method: str, start: str = "/") -> int:
        """How many requests of a method there were, for paths that start so."""
        return sum(one == method and path.startswith(start) for one, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    cache: CacheServer

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """Answer; `Content_Length` and the like replace what would be sent."""
        self.send_response(status)
        named = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        for name, text in named.items():
            if text:
                self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def handle_one_request(self) -> None:
        """The client may be gone by the time of the answer."""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def _serve(self) -> None:
        cache = self.cache
        cache.requests.append((self.command, self.path))
        cache.headers.append(dict(self.headers.items()))
        cache.connections.add(self.client_address)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if cache.answer(self):
            return
        if self.command == "PUT":
            cache.held[self.path] = sent
            self.reply(200)
        elif self.path in cache.held:
            self.reply(200, cache.held[self.path])
        else:
            self.reply(404, b"Not found\n")

    do_GET = do_HEAD = do_PUT = _serve  # noqa: N815 - the names are http.server's


@contextmanager
def cache_server() -> Iterator[CacheServer]:
    """A server on a free port of loopback."""
    cache = CacheServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cache": cache}))
    server.daemon_threads = True
    cache.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield cache
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def free_port() -> int:
    """A port of loopback on which nobody listens now.

    A server may need a minute until it listens, and may be killed and begin again. Meanwhile no connection and no server of
    another test gets the port, since the kernel gives away only those of a range, and this one is below that, where possible.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(_FIRST_PORT, lowest)
    while True:
        with socket.socket() as made, suppress(OSError):
            made.bind(("127.0.0.1", random.choice(below) if len(below) > _FEW_PORTS else 0))
            port: int = made.getsockname()[1]
            return port
