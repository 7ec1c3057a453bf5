"""Bazel's HTTP cache protocol, from the client's side: `/ac/<sha256>` and `/cas/<sha256>` of one server.

A fault of the server or of the network is never raised: the answer is then that of a server which has nothing. The first fault
of a build is said, and a server that goes on failing is left alone. With `required`, the first fault ends the build instead.
"""

from __future__ import annotations

import base64
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from bkrules.cache.remote_options import RemoteOptions
from bkrules.digest import Digest
from bkrules.errors import MachineLacks

if TYPE_CHECKING:
    from requests import Response, Session

UPLOAD_RATE = 4 << 20  # bytes a second, at which a server must at least store what it was sent
CONNECT = 3.0  # seconds for a connection
IDLE = 5.0  # seconds without a byte
FAULTS = 5  # in a row, after which the server is left alone
MOST_RESULT = 4 << 20  # bytes of an action result
CHUNK = 1 << 20
MISSING = 404
OK = 200
BOTH = ("GET", "PUT")

_T = TypeVar("_T")
Warn = Callable[[str], None]


class _Fault(Exception):
    """Something other than an answer. `final` holds the methods for which there is no use in asking this server again."""

    def __init__(self, what: str, *, final: Collection[str] = ()) -> None:
        super().__init__(what)
        self.final = final


class HttpStore:
    """One server. Safe for several threads. `warn` is called with the first fault, and with no other."""

    def __init__(self, options: RemoteOptions, warn: Warn) -> None:
        self._options = options
        self._address = options.address
        self._warn = warn
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._streaks = {"GET": 0, "PUT": 0}
        self._away: set[str] = set()
        self.fault = ""

    @property
    def readable(self) -> bool:
        """Whether the server is still asked."""
        return "GET" not in self._away

    @property
    def writable(self) -> bool:
        """Whether the server is still given anything."""
        return self._options.upload and "PUT" not in self._away

    def result(self, key: Digest) -> bytes | None:
        """The bytes of an action result, as the server has them."""

        def get() -> bytes | None:
            with self._send("GET", f"/ac/{key.hash}") as response:
                if response.status_code == MISSING:
                    return None
                return b"".join(self._body(response, MOST_RESULT))

        return self._attempt("GET", f"ac/{key.hash}", get, None)

    def blob(self, name: Digest, receive: Callable[[Digest, Iterator[bytes]], None]) -> bool:
        """Give the bytes of a blob to `receive`, which raises ValueError when they are not those of its digest."""

        def get() -> bool:
            with self._send("GET", f"/cas/{name.hash}") as response:
                if response.status_code == MISSING:
                    raise _Fault("it does not have what its own action result names")
                receive(name, self._body(response, name.size))
            return True

        return self._attempt("GET", f"cas/{name.hash}", get, False)

    def has(self, name: Digest) -> bool:
        """Whether the server says that it has a blob. It may be wrong."""

        def head() -> bool:
            with self._send("HEAD", f"/cas/{name.hash}") as response:
                return response.status_code == OK

        return self._attempt("GET", f"cas/{name.hash}", head, False)

    def put_blob(self, name: Digest, path: str) -> bool:
        """Store the bytes of the file at `path`."""

        def put() -> bool:
            with open(path, "rb") as file:
                self._put(f"/cas/{name.hash}", file, name.size)
            return True

        return self._attempt("PUT", f"cas/{name.hash}", put, False)

    def put_result(self, key: Digest, data: bytes) -> bool:
        """Store an action result whose blobs are there."""

        def put() -> bool:
            self._put(f"/ac/{key.hash}", data, len(data))
            return True

        return self._attempt("PUT", f"ac/{key.hash}", put, False)

    def lied(self, what: str) -> None:
        """Note a fault that was found in what the server said. Raises MachineLacks when the cache is required."""
        self._note("GET", _Fault(what))

    def _attempt(self, side: str, what: str, call: Callable[[], _T], otherwise: _T) -> _T:
        if side in self._away:
            return otherwise
        try:
            found = call()
        except (_Fault, OSError, ValueError) as error:
            fault = error if isinstance(error, _Fault) else _Fault(str(error))
            self._note(side, _Fault(f"{side} {what}: {fault}", final=fault.final))
            return otherwise
        with self._lock:
            self._streaks[side] = 0
        return found

    def _note(self, side: str, fault: _Fault) -> None:
        with self._lock:
            self._streaks[side] += 1
            self._away.update(fault.final or ([side] if self._streaks[side] >= FAULTS else []))
            first = not self.fault
            self.fault = self.fault or f"remote cache {self._address}: {fault}"
        if self._options.required:
            raise MachineLacks("remote-cache", self.fault, hint="without --remote_required, bk goes on without it")
        if first:
            self._warn(f"warning: {self.fault}; the build goes on without what it cannot have")

    def _put(self, path: str, data: bytes | BinaryIO, size: int) -> None:
        body = data if isinstance(data, bytes) else _Timed(data, size, time.monotonic() + self._options.timeout)
        with self._send("PUT", path, body) as response:
            if response.status_code not in (OK, 201, 202, 204):
                raise self._refusal(response, ["PUT"])

    def _body(self, response: Response, most: int) -> Iterator[bytes]:
        """The body's bytes as they were sent, at most `most` of them, while the time for one request lasts."""
        from urllib3.exceptions import HTTPError

        if response.status_code != OK:
            raise self._refusal(response, BOTH)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Fault("it answers with an encoding that was not asked for")
        deadline = time.monotonic() + self._options.timeout
        total = 0
        while True:
            try:
                chunk = response.raw.read1(min(CHUNK, most - total + 1), decode_content=False)
            except (HTTPError, OSError) as error:
                raise _Fault(_why(error)) from error
            if not chunk:
                return
            total += len(chunk)
            if total > most:
                raise _Fault(f"it sends more than {most} bytes")
            if time.monotonic() > deadline:
                raise _Fault(f"not there after {self._options.timeout:g} s")
            yield chunk

    def _refusal(self, response: Response, methods: Collection[str]) -> _Fault:
        """A status that is no answer. Who may not do this now may not later either; who may not write may still read."""
        code = response.status_code
        hint = {401: ": it wants credentials, or others", 403: ": not allowed", 407: ": of the proxy"}.get(code, "")
        return _Fault(f"status {code}{hint}", final=methods if hint else ())

    def _send(self, method: str, path: str, body: bytes | _Timed | None = None) -> Response:
        """The head of an answer. A connection that the server had closed meanwhile is replaced once."""
        import requests
        from urllib3.exceptions import ProtocolError

        session = self._open()
        idle = min(IDLE + (len(body) / UPLOAD_RATE if body else 0), self._options.timeout)
        timeout = (min(CONNECT, self._options.timeout), idle)
        for last in (False, True):
            try:
                response = session.request(
                    method,
                    self._address + path,
                    data=body.rewound() if isinstance(body, _Timed) else body,
                    timeout=timeout,
                    stream=True,
                    allow_redirects=False,
                )
                if response.status_code != OK:
                    self._drain(response)
                return response
            except requests.RequestException as error:
                if not last and error.args and isinstance(error.args[0], ProtocolError):
                    continue
                if isinstance(error, requests.ReadTimeout):
                    # A server that is silent about something this small would cost as much for each of the others.
                    raise _Fault(f"no answer in {idle:g} s", final=BOTH if path.startswith("/ac/") else ()) from error
                ended = error.args and isinstance(error.args[0], ProtocolError)
                raise _Fault(_why(error), final=() if ended else BOTH) from error
        raise AssertionError

    def _drain(self, response: Response) -> None:
        """Read a short body to its end, so that the connection can be used again."""
        if int(response.headers.get("Content-Length") or CHUNK) < CHUNK:
            for _ in range(64):
                if not response.raw.read1(1 << 14, decode_content=False):
                    return

    def _open(self) -> Session:
        """The session, made when it is first needed: a build of nothing but hits of the disk cache imports no client."""
        with self._lock:
            if self._session is None:
                self._session = _session(self._options, self._address)
            return self._session


def _session(options: RemoteOptions, address: str) -> Session:
    import requests
    from requests.adapters import HTTPAdapter
    from requests.utils import get_environ_proxies, get_netrc_auth

    session = requests.Session()
    session.trust_env = False  # read once here: else netrc would be read for each request, and win over --remote_header
    session.proxies.update(get_environ_proxies(address))
    session.verify = options.certificate or True
    session.headers.clear()
    session.headers.update({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "bk"})
    parts = urlsplit(options.url)
    found = (parts.username, parts.password or "") if parts.username else get_netrc_auth(address)
    if found:
        pair = ":".join(unquote(part or "") if parts.username else part or "" for part in found)
        session.headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    session.headers.update(dict(options.headers))
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=32)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Timed:
    """A file as the body of a request, which is cut off when its time is over."""

    def __init__(self, file: BinaryIO, size: int, deadline: float) -> None:
        self._file, self._size, self._deadline = file, size, deadline

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the time for one request is over")
        return self._file.read(size)

    def rewound(self) -> _Timed:
        """The same from its start."""
        self._file.seek(0)
        return self


def _why(error: BaseException) -> str:
    """The innermost cause in a few words. It names no URL, so no secret either."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'unknown reason'}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return {"IncompleteRead": "the answer was cut short", "TimeoutError": "no byte in time"}.get(
        type(error).__name__, type(error).__name__
    )
