"""Serves one page to browsers of this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PATIENCE = 30.0
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def serve(path: Path, listening: Callable[[str], None]) -> None:
    """Serve the file at `path` at a free port of 127.0.0.1 until Ctrl-C; `listening` gets the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, path)) as server:
        listening(f"http://127.0.0.1:{server.server_port}/")
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET / with the file as it is then, to requests for this address: a page of another site gets nothing."""

    timeout = _PATIENCE
    server: ThreadingHTTPServer

    def __init__(self, path: Path, *rest: object) -> None:
        self._page = path
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        names = {f"{host}:{self.server.server_port}" for host in ("127.0.0.1", "localhost")}
        if self.headers.get("Host") not in names:
            self.send_error(403)
        elif self.path != "/":
            self.send_error(404)
        else:
            data = self._page.read_bytes()
            self.send_response(200)
            for name, value in {**_HEADERS, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing: the address is all that a user needs."""
