"""HTTP and echo servers in a cell, for builds that fetch files or open connections."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class HttpRequest:
    """A request as it arrived; the names of its `headers` are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass(frozen=True)
class HttpServer:
    """Serves `files`, bytes by path such as `/a.tar`, each with its digest as ETag. `requests` are in order."""

    address: str
    files: dict[str, bytes]
    requests: list[HttpRequest] = field(default_factory=list)

    def url(self, path: str) -> str:
        """Return the URL of a path, `/a.tar`."""
        return f"http://{self.address}{path}"


@contextmanager
def http_server() -> Iterator[HttpServer]:
    """Run an HTTP server in this cell for as long as the context lasts; it has no files yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = served.files.get(self.path)
            tag = f'"{sha256(found or b"").hexdigest()}"'
            status = 404 if found is None else 304 if self.headers.get("If-None-Match") == tag else 200
            headers = {name.lower(): value for name, value in self.headers.items()}
            served.requests.append(HttpRequest(self.command, self.path, headers, status))
            body = found if found is not None and status == 200 else b""
            self.send_response(status)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Log nothing: `requests` has everything."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = HttpServer(f"127.0.0.1:{server.server_port}", {})
        with _served(server):
            yield served


@contextmanager
def echo_server() -> Iterator[str]:
    """Run a TCP server that echoes its input for as long as the context lasts. Return its `host:port`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server, _served(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
