"""HTTP requests and their answers, on kept-alive connections.

A server can neither block nor fill this process: `Limits` bound the time of each request; status lines, headers and
interim answers have a common limit; and each reader of a body sets the body's limit. The client sends credentials only
to the server they belong to: it reads nothing from `~/.netrc`, and a redirect to another origin drops them.
"""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import urljoin, urlsplit

import urllib3.exceptions
from urllib3 import BaseHTTPResponse
from urllib3.poolmanager import PoolManager

from bkrules.web.connection import ask, manager
from bkrules.web.errors import BadAnswer, HttpError, TooLarge, TooSlow, Unreachable, reason
from bkrules.web.limits import Limits, Watch
from bkrules.web.proxies import Proxies, Proxy
from bkrules.web.wire import Wire

CHUNK = 256 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
_SHORT = 64 << 10  # bytes of an unwanted body, read so that the connection can be kept
_SHORT_TIME = 5.0  # seconds for reading these bytes
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "bk"}
_FAULTS = (OSError, ValueError, HTTPException, urllib3.exceptions.HTTPError)


@dataclass(frozen=True)
class Body:
    """The body of a request: its size in bytes, and a function that restarts its chunks."""

    size: int
    chunks: Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Origin:
    """The target of a request: scheme, host and port. Credentials of one origin are not sent to another."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin:
    """Return the origin of a URL. Raises Unreachable when its scheme is not http or https."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        parts, port, host = None, None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or _UNSAFE.search(host) or " " in host:
        raise Unreachable("the address is not an http or https URL")
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("idna").decode()
    return Origin(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme])


class Response:
    """An answer. Its body must be read or closed; the context manager closes it."""

    def __init__(self, url: str, http: BaseHTTPResponse) -> None:
        self.url = url
        self.status = http.status
        self._http = http
        self._wire: Wire = http.wire  # type: ignore[attr-defined]
        self._open = True

    @property
    def reason(self) -> str:
        """The printable words of the status line."""
        return "".join(letter for letter in (self._http.reason or "")[:100] if letter.isprintable())

    def header(self, name: str) -> str:
        """Return a header, or an empty text."""
        return str(self._http.headers.get(name, ""))

    def headers(self, name: str) -> list[str]:
        """Return all headers of that name."""
        return list(self._http.headers.getlist(name))

    def read(self, most: int) -> bytes:
        """Return the whole body. Raises HttpError, also when it has more than `most` bytes."""
        return b"".join(self.chunks(most))

    def chunks(self, most: int) -> Iterator[bytes]:
        """Yield the body in chunks, as it was sent. Raises HttpError, also when it has more than `most` bytes."""
        total = 0
        pieces = self._http.stream(CHUNK, decode_content=False)
        while chunk := self._next(pieces):
            total += len(chunk)
            if total > most:
                self.close()
                raise TooLarge(f"it sends more than {most} bytes")
            yield chunk

    def _next(self, pieces: Iterator[bytes]) -> bytes:
        try:
            self._wire.watch.left()
            chunk = next(pieces, b"")
        except _FAULTS as error:
            self.close()
            raise _described(error) from error
        self._wire.received(len(chunk))
        self._open &= bool(chunk)
        return chunk

    def close(self) -> None:
        """Discard the rest of the body, and close its connection."""
        if self._open:
            self._open = False
            self._http.close()
            self._http.release_conn()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        """Read a short rest of the body, so that the connection can be reused."""
        length = self._http.length_remaining
        if self._open and kind is None and (length is None or length <= _SHORT):
            self._wire.watch.hurry(_SHORT_TIME)
            with suppress(HttpError):
                for _ in self.chunks(_SHORT):
                    pass
        self.close()


class HttpClient:
    """A client of any servers. Safe for several threads.

    `trust` makes the TLS context when the first request needs it.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext], proxies: Proxies | None = None) -> None:
        self._make_trust, self._proxies = trust, proxies or Proxies()
        self._lock = threading.Lock()
        self._trust: ssl.SSLContext | None = None
        self._managers: dict[tuple[Proxy | None, bool], PoolManager] = {}

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            for pools in self._managers.values():
                pools.clear()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        limits: Limits | None = None,
        *,
        secret: Mapping[str, str] | None = None,
        redirects: bool = False,
        plain: bool = False,
        replay: bool = True,
    ) -> Response:
        """Return the answer to a request. Raises HttpError.

        `secret` are headers for the origin of `url` alone. With `redirects`, the client follows redirects within the
        same limits; from https to http only for public content (`plain`). When the server closes a connection without
        an answer, the client retries once, since a kept connection may have expired, unless the address is valid for a
        single try (`replay`).
        """
        watch = Watch(limits or Limits())
        own = origin(url)
        for _ in range(_MOST_REDIRECTS):
            place = origin(url)
            sent = {**(headers or {}), **((secret or {}) if place == own else {})}
            response = self._ask(method, url, place, sent, body, watch, replay)
            target = response.header("Location") if redirects and response.status in _REDIRECTS else ""
            if not target or (response.status in (301, 302, 303) and method not in ("GET", "HEAD")):
                return response
            with response:
                url = _joined(url, target)
            if place.scheme == "https" and origin(url).scheme == "http" and not plain:
                raise BadAnswer("it redirects from https to http")
        raise BadAnswer(f"it redirects more than {_MOST_REDIRECTS} times")

    def _ask(
        self,
        method: str,
        url: str,
        place: Origin,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        watch: Watch,
        replay: bool,
    ) -> Response:
        """Return the answer of one server. Raises HttpError."""
        pools = self._pools(place)
        sent = _checked(
            {**_HEADERS, **headers, **({"Content-Length": str(body.size)} if isinstance(body, Body) else {})}
        )
        for last in (False, True) if replay else (True,):
            watch.answering = False
            data = _pieces(body) if isinstance(body, Body) else body
            try:
                return Response(url, ask(pools, watch, method, url, headers=sent, body=data))
            except _BodyFailed as error:
                raise error.cause from None
            except _FAULTS as error:
                told = _described(error)
                if last or watch.answering or isinstance(told, TooSlow | Unreachable):
                    raise told from error
        raise AssertionError

    def _pools(self, place: Origin) -> PoolManager:
        proxy = self._proxies.of(place.scheme, place.host, place.port)
        secured = place.scheme == "https" or (proxy is not None and proxy.scheme == "https")
        with self._lock:
            if secured and self._trust is None:
                self._trust = self._make_trust()
            if (proxy, secured) not in self._managers:
                self._managers[proxy, secured] = manager(proxy, self._trust if secured else None)
            return self._managers[proxy, secured]


class _BodyFailed(Exception):
    """The body of a request cannot be read."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _pieces(body: Body) -> Iterator[bytes]:
    """Yield the body of a request. Raises _BodyFailed, also when its size differs from the announced one."""
    sent = 0
    try:
        for chunk in body.chunks():
            sent += len(chunk)
            if sent > body.size:
                break
            yield chunk
    except Exception as error:
        raise _BodyFailed(error) from error
    if sent != body.size:
        raise _BodyFailed(BadAnswer(f"the body does not have the announced {body.size} bytes"))


def _described(error: BaseException) -> HttpError:
    """Return a description of an urllib3 error, by its innermost cause."""
    while inner := next((one for one in error.args if isinstance(one, BaseException)), None):
        error = inner
    return error if isinstance(error, HttpError) else BadAnswer(reason(error))


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers. Raises BadAnswer for an invalid one."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or _UNSAFE.search(value.replace("\t", " ")):
            raise BadAnswer(f"the header {name!r} cannot be sent: it has a character that headers cannot have")
    return dict(headers)


def _joined(url: str, target: str) -> str:
    """Return the target of a redirect, without user and password. Raises BadAnswer."""
    try:
        parts = urlsplit(urljoin(url, target))
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    except ValueError as error:
        raise BadAnswer("it redirects to an invalid URL") from error
