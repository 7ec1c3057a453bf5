"""The debug socket of a daemon: its stacks, its metrics, its profiles."""

from __future__ import annotations

import socket
from http.client import HTTPConnection


class _UnixConnection(HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("debug", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(address: str, path: str, timeout: float) -> bytes:
    """Return the answer to GET of `path` at `address`, which is `unix://` and the path of a socket.

    Raises OSError, also when the status is not 200.
    """
    __tracebackhide__ = True
    connection = _UnixConnection(address.removeprefix("unix://"), timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise OSError(f"GET {path} at {address}: status {answer.status}: {data.decode(errors='replace').strip()}")
        return data
    finally:
        connection.close()
