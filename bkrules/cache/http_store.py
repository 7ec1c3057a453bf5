"""Bazel's HTTP cache protocol, the client's side: `/ac/<sha256>` and `/cas/<sha256>` of one server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from bkrules.cache.breaker import BOTH, READ, WRITE, Breakable, Fault, Warn
from bkrules.cache.credentials import request_headers
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model.digest import Digest

if TYPE_CHECKING:
    from bkrules.web.client import Body, HttpClient, Response

UPLOAD_RATE = 4 << 20  # bytes a second: the least rate at which a server must accept an upload
CONNECT = 3.0  # seconds for a connection
IDLE = 5.0  # seconds without a byte
ASK_FIRST = 64 << 10  # bytes; bk sends a smaller blob without asking the server whether it has it
MOST_RESULT = 4 << 20  # bytes of an action result
MISSING = 404
_BAD_REQUEST = 400
_BUSY = 429
_OF_SERVER = 500  # and above: the server is at fault
_SHORT = 1000  # bytes of a message for people
OK = 200

Receive = Callable[[Digest, Iterator[bytes]], None]


class HttpStore(Breakable):
    """The client of one server. Safe for several threads. Faults become misses, as `Breaker` describes."""

    def __init__(self, options: RemoteOptions, warn: Warn) -> None:
        self._options = options
        self._address = options.address
        super().__init__(options, warn)
        self._lock = threading.Lock()
        self._client: tuple[HttpClient, dict[str, str]] | None = None

    def result(self, key: Digest) -> bytes | None:
        """Return the bytes of an action result from the server."""

        def get() -> bytes | None:
            with self._send("GET", f"/ac/{key.hash}") as response:
                if response.status == MISSING:
                    return None
                return b"".join(self._body(response, MOST_RESULT))

        return self._breaker.look_up(lambda: self._breaker.attempt(READ, f"GET ac/{key.hash}", get, None))

    def blob(self, name: Digest, receive: Receive) -> bool:
        """Pass the bytes of a blob to `receive`, which raises ValueError when they do not match its digest."""

        def get() -> bool:
            with self._send("GET", f"/cas/{name.hash}") as response:
                if response.status == MISSING:
                    raise Fault("it lacks this blob", lacks=True)
                receive(name, self._body(response, name.size))
            return True

        return self._breaker.attempt(READ, f"GET cas/{name.hash}", get, False)

    def has(self, name: Digest) -> bool:
        """Return whether the server claims to have a blob of that size. The claim may be wrong.

        bazel-remote that was killed during an upload may have the first part of the blob.
        """

        def head() -> bool:
            with self._send("HEAD", f"/cas/{name.hash}") as response:
                return response.status == OK and response.header("Content-Length") in ("", str(name.size))

        return self._breaker.attempt(READ, f"GET cas/{name.hash}", head, False)

    def put_blob(self, name: Digest, path: str) -> bool:
        """Store the bytes of the file at `path`."""

        def put() -> bool:
            with open(path, "rb") as file:
                self._put(f"/cas/{name.hash}", file, name.size)
            return True

        return self._breaker.attempt(WRITE, f"PUT cas/{name.hash}", put, False)

    def put_result(self, key: Digest, data: bytes) -> bool:
        """Store an action result whose blobs the server has."""

        def put() -> bool:
            self._put(f"/ac/{key.hash}", data, len(data))
            return True

        return self._breaker.attempt(WRITE, f"PUT ac/{key.hash}", put, False)

    def groups(self, names: Iterable[Digest]) -> list[list[Digest]]:
        """Return the blobs in groups, each for one call of `blobs` or `put_blobs`."""
        return [[name] for name in names]

    def blobs(self, names: Iterable[Digest], receive: Receive) -> set[Digest]:
        """Pass the bytes of blobs to `receive`. Return those that it accepted."""
        return {name for name in names if self.blob(name, receive)}

    def missing(self, names: Iterable[Digest]) -> set[Digest]:
        """Return the blobs that the server may lack. The answer may be wrong."""
        return {name for name in names if name.size < ASK_FIRST or not self.has(name)}

    def put_blobs(self, paths: Mapping[Digest, str]) -> set[Digest]:
        """Store the bytes of files. Return the blobs that the server accepted."""
        return {name for name, path in paths.items() if self.put_blob(name, path)}

    def _put(self, path: str, data: bytes | BinaryIO, size: int) -> None:
        from bkrules.web.client import CHUNK, Body

        def chunks() -> Iterator[bytes]:
            assert not isinstance(data, bytes)
            data.seek(0)
            return iter(partial(data.read, CHUNK), b"")

        body = data if isinstance(data, bytes) else Body(size, chunks)
        with self._send("PUT", path, body, size) as response:
            if response.status not in (OK, 201, 202, 204):
                raise self._refusal(response, [WRITE])

    def _body(self, response: Response, most: int) -> Iterator[bytes]:
        """Return the body's bytes as they were sent, at most `most` of them. Raises Fault."""
        if response.status != OK:
            raise self._refusal(response, BOTH)
        if (response.header("Content-Encoding") or "identity") != "identity":
            raise Fault("it answers with an unsolicited encoding")
        yield from response.chunks(most)

    def _refusal(self, response: Response, sides: Collection[str]) -> Fault:
        """Return the fault of a refusing status. A refused read or write stays refused; a server that refuses writes
        may allow reads.
        """
        code = response.status
        hint = {401: ": it requires other credentials", 403: ": not allowed", 407: ": of the proxy"}.get(code, "")
        if code == _BAD_REQUEST and b"HTTPS" in _start_of(response):
            hint = ": a server with TLS needs https://"
            sides = BOTH
        passes = code == _BUSY or code >= _OF_SERVER
        return Fault(f"status {code}{hint}", final=sides if hint else (), passes=passes)

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            if self._client is not None:
                self._client[0].close()

    def _send(self, method: str, path: str, body: bytes | Body | None = None, size: int = 0) -> Response:
        """Return the head of an answer. A redirect is a fault: requests of the cache go to its server alone. Raises Fault."""
        from bkrules.web.errors import BadAnswer, TooSlow, Unreachable
        from bkrules.web.limits import Limits

        client, headers = self._open()
        total = self._options.timeout
        limits = Limits(min(CONNECT, total), min(IDLE + size / UPLOAD_RATE, total), total)
        try:
            return client.request(method, self._address + path, headers, body, limits)
        except TooSlow as error:
            # A server that does not answer such a small request would cost as much time for each of the others.
            raise Fault(str(error), final=BOTH if path.startswith("/ac/") else (), passes=True) from error
        except Unreachable as error:
            raise Fault(str(error), final=BOTH, passes=True) from error
        except BadAnswer as error:
            raise Fault(str(error), passes=True) from error

    def _open(self) -> tuple[HttpClient, dict[str, str]]:
        """Return the client and its headers, made at the first request: a build of disk hits imports no client."""
        with self._lock:
            if self._client is None:
                self._client = _client(self._options)
            return self._client


def _start_of(response: Response) -> bytes:
    """Return the body of a short answer, or nothing."""
    from bkrules.web.errors import HttpError

    try:
        return response.read(_SHORT)
    except HttpError:
        return b""


def _client(options: RemoteOptions) -> tuple[HttpClient, dict[str, str]]:
    """Return a client and the headers of each request."""
    from bkrules.web.client import HttpClient
    from bkrules.web.trust import trust

    return HttpClient(trust(options.certificate, options.client)), request_headers(options)
