"""Bazel's HTTP cache protocol, the client's side: `/ac/<sha256>` and `/cas/<sha256>` of one server.

A fault of the server or the network is never raised: it counts as a miss. bk prints one warning for the first fault of
a build, and stops using a server that keeps failing. With `required`, the first fault ends the build instead.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import MachineLacks
from bkrules.model.digest import Digest

if TYPE_CHECKING:
    from bkrules.web.client import Body, HttpClient, Response

UPLOAD_RATE = 4 << 20  # bytes a second: the least rate at which a server must accept an upload
CONNECT = 3.0  # seconds for a connection
IDLE = 5.0  # seconds without a byte
FAULTS = 5  # consecutive faults after which bk stops using the server
MOST_RESULT = 4 << 20  # bytes of an action result
MISSING = 404
OK = 200
BOTH = ("GET", "PUT")

_T = TypeVar("_T")
Warn = Callable[[str], None]


class _Fault(Exception):
    """A fault instead of an answer. `final` holds the methods that are not worth repeating with this server."""

    def __init__(self, what: str, *, final: Collection[str] = ()) -> None:
        super().__init__(what)
        self.final = final


class HttpStore:
    """The client of one server. Safe for several threads. `warn` is called with the first fault only."""

    def __init__(self, options: RemoteOptions, warn: Warn) -> None:
        self._options = options
        self._address = options.address
        self._warn = warn
        self._lock = threading.Lock()
        self._client: tuple[HttpClient, dict[str, str]] | None = None
        self._streaks = {"GET": 0, "PUT": 0}
        self._away: set[str] = set()
        self.fault = ""

    @property
    def readable(self) -> bool:
        """Whether bk still reads from the server."""
        return "GET" not in self._away

    @property
    def writable(self) -> bool:
        """Whether bk still writes to the server."""
        return self._options.upload and "PUT" not in self._away

    def result(self, key: Digest) -> bytes | None:
        """Return the bytes of an action result from the server."""

        def get() -> bytes | None:
            with self._send("GET", f"/ac/{key.hash}") as response:
                if response.status == MISSING:
                    return None
                return b"".join(self._body(response, MOST_RESULT))

        return self._attempt("GET", f"ac/{key.hash}", get, None)

    def blob(self, name: Digest, receive: Callable[[Digest, Iterator[bytes]], None]) -> bool:
        """Pass the bytes of a blob to `receive`, which raises ValueError when they do not match its digest."""

        def get() -> bool:
            with self._send("GET", f"/cas/{name.hash}") as response:
                if response.status == MISSING:
                    raise _Fault("it lacks a blob that its action result names")
                receive(name, self._body(response, name.size))
            return True

        return self._attempt("GET", f"cas/{name.hash}", get, False)

    def has(self, name: Digest) -> bool:
        """Return whether the server claims to have a blob. The claim may be wrong."""

        def head() -> bool:
            with self._send("HEAD", f"/cas/{name.hash}") as response:
                return response.status == OK

        return self._attempt("GET", f"cas/{name.hash}", head, False)

    def put_blob(self, name: Digest, path: str) -> bool:
        """Store the bytes of the file at `path`."""

        def put() -> bool:
            with open(path, "rb") as file:
                self._put(f"/cas/{name.hash}", file, name.size)
            return True

        return self._attempt("PUT", f"cas/{name.hash}", put, False)

    def put_result(self, key: Digest, data: bytes) -> bool:
        """Store an action result whose blobs the server has."""

        def put() -> bool:
            self._put(f"/ac/{key.hash}", data, len(data))
            return True

        return self._attempt("PUT", f"ac/{key.hash}", put, False)

    def lied(self, what: str) -> None:
        """Record a fault in the content of an answer. Raises MachineLacks when the cache is required."""
        self._note("GET", _Fault(what))

    def _attempt(self, side: str, what: str, call: Callable[[], _T], otherwise: _T) -> _T:
        if side in self._away:
            return otherwise
        try:
            answer = call()
        except (_Fault, OSError, ValueError) as error:
            fault = error if isinstance(error, _Fault) else _Fault(str(error))
            self._note(side, _Fault(f"{side} {what}: {fault}", final=fault.final))
            return otherwise
        with self._lock:
            self._streaks[side] = 0
        return answer

    def _note(self, side: str, fault: _Fault) -> None:
        with self._lock:
            self._streaks[side] += 1
            self._away.update(fault.final or ([side] if self._streaks[side] >= FAULTS else []))
            first = not self.fault
            self.fault = self.fault or f"remote cache {self._address}: {fault}"
        if self._options.required:
            raise MachineLacks("remote-cache", self.fault, hint="without --remote_required, bk continues without it")
        if first:
            self._warn(f"warning: {self.fault}; the build continues, and counts this as a miss")

    def _put(self, path: str, data: bytes | BinaryIO, size: int) -> None:
        from bkrules.web.client import CHUNK, Body

        def chunks() -> Iterator[bytes]:
            assert not isinstance(data, bytes)
            data.seek(0)
            return iter(partial(data.read, CHUNK), b"")

        body = data if isinstance(data, bytes) else Body(size, chunks)
        with self._send("PUT", path, body, size) as response:
            if response.status not in (OK, 201, 202, 204):
                raise self._refusal(response, ["PUT"])

    def _body(self, response: Response, most: int) -> Iterator[bytes]:
        """Return the body's bytes as they were sent, at most `most` of them. Raises _Fault."""
        if response.status != OK:
            raise self._refusal(response, BOTH)
        if (response.header("Content-Encoding") or "identity") != "identity":
            raise _Fault("it answers with an unsolicited encoding")
        yield from response.chunks(most)

    def _refusal(self, response: Response, methods: Collection[str]) -> _Fault:
        """Return the fault of a refusing status. A refused read or write stays refused; a server that refuses writes
        may allow reads.
        """
        code = response.status
        hint = {401: ": it requires other credentials", 403: ": not allowed", 407: ": of the proxy"}.get(code, "")
        return _Fault(f"status {code}{hint}", final=methods if hint else ())

    def _send(self, method: str, path: str, body: bytes | Body | None = None, size: int = 0) -> Response:
        """Return the head of an answer. A redirect is a fault: requests of the cache go to its server alone. Raises _Fault."""
        from bkrules.web.errors import TooSlow, Unreachable
        from bkrules.web.limits import Limits

        client, headers = self._open()
        total = self._options.timeout
        limits = Limits(min(CONNECT, total), min(IDLE + size / UPLOAD_RATE, total), total)
        try:
            return client.request(method, self._address + path, headers, body, limits)
        except TooSlow as error:
            # A server that does not answer such a small request would cost as much time for each of the others.
            raise _Fault(str(error), final=BOTH if path.startswith("/ac/") else ()) from error
        except Unreachable as error:
            raise _Fault(str(error), final=BOTH) from error

    def _open(self) -> tuple[HttpClient, dict[str, str]]:
        """Return the client and its headers, made at the first request: a build of disk hits imports no client."""
        with self._lock:
            if self._client is None:
                self._client = _client(self._options, self._address)
            return self._client


def _client(options: RemoteOptions, address: str) -> tuple[HttpClient, dict[str, str]]:
    """Return a client and the headers of each request. `--remote_header` takes precedence over the URL, and the URL
    over `~/.netrc`.
    """
    from bkrules.web.client import HttpClient
    from bkrules.web.trust import trust

    parts = urlsplit(options.url)
    if parts.username:
        credentials: tuple[str, str] | None = (unquote(parts.username), unquote(parts.password or ""))
    else:
        credentials = _netrc(parts.hostname or "")
    headers = {}
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"
    named = {name.lower() for name, _ in options.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in named} | dict(options.headers)
    return HttpClient(trust(options.certificate)), headers


def _netrc(host: str) -> tuple[str, str] | None:
    """Return the user and the password of a host in `$NETRC` or `~/.netrc`, where users of Bazel's cache keep them."""
    import netrc

    try:
        entry = netrc.netrc(os.environ.get("NETRC") or os.path.expanduser("~/.netrc")).authenticators(host)
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return None
    user, password = (entry[0] or entry[1] or "", entry[2] or "") if entry else ("", "")
    return (user, password) if user or password else None
