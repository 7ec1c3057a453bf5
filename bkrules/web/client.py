"""Requests and their answers, on connections that are kept.

What a server does can neither hold nor fill this process: `Limits` bound the time of each request, status lines, headers and
interim answers are bounded together, and whoever reads a body says how long it may be. Credentials are sent to the server they
are for and to no other: nothing is read from `~/.netrc`, and a redirect to another origin loses them.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import quote, urljoin, urlsplit

from bkrules.web.dial import dial
from bkrules.web.errors import BadAnswer, HttpError, TooSlow, Unreachable, reason
from bkrules.web.limits import Limits, Watch
from bkrules.web.proxies import Proxies, Proxy
from bkrules.web.wire import Stream, Wire

CHUNK = 256 << 10
_KEPT = 32  # connections to a server
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
_INTERIM = 10  # answers before the answer; those of 100 are read by http.client, and count as bytes of the head
_SHORT = 64 << 10  # bytes of a body that nobody wants, read so that the connection can be kept
_SHORT_TIME = 5.0  # seconds for these
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "bk"}
_SAFE = "!#$%&'()*+,/:;=?@[]~-._"


@dataclass(frozen=True)
class Body:
    """The body of a request: its size in bytes, and a function that begins its pieces anew."""

    size: int
    chunks: Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Origin:
    """Where a request goes: scheme, host and port. Credentials for one origin are for no other."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of Host."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


def origin(url: str) -> Origin:
    """Return the origin of a URL. Raises Unreachable when it is none of http or https."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        parts, port, host = None, None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or _UNSAFE.search(host) or " " in host:
        raise Unreachable("the address is no URL of http or https")
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("idna").decode()
    return Origin(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme])


class Response:
    """An answer. Its body must be read or closed; as a context manager it does so itself."""

    def __init__(self, url: str, http: HTTPResponse, wire: Wire, release: Callable[[Wire | None], None]) -> None:
        self.url = url
        self.status = http.status
        self.headers: Message = http.headers
        self._http, self._wire, self._release = http, wire, release
        self._open = True

    @property
    def reason(self) -> str:
        """The words beside the status, as far as they can be shown."""
        return "".join(letter for letter in self._http.reason[:100] if letter.isprintable())

    def header(self, name: str) -> str:
        """Return a header, or nothing."""
        return str(self.headers.get(name, ""))

    def read(self, most: int) -> bytes:
        """Return the whole body. Raises HttpError, also when it has more than `most` bytes."""
        return b"".join(self.chunks(most))

    def chunks(self, most: int) -> Iterator[bytes]:
        """Return the body piece by piece, as it was sent. Raises HttpError, also when it has more than `most` bytes."""
        total = 0
        while chunk := self._read(min(CHUNK, most - total + 1)):
            total += len(chunk)
            if total > most:
                self.close()
                raise BadAnswer(f"it sends more than {most} bytes")
            yield chunk

    def _read(self, size: int) -> bytes:
        if not self._open:
            return b""
        try:
            self._wire.watch.left()
            chunk = self._http.read1(size)
            self._wire.received(len(chunk))
            if not chunk and self._http.length:
                raise BadAnswer("the answer was cut short")
        except HttpError:
            self.close()
            raise
        except (HTTPException, OSError, ValueError) as error:
            self.close()
            raise BadAnswer(reason(error)) from error
        if not chunk:
            self._finish()
        return chunk

    def _finish(self) -> None:
        if self._open:
            self._open = False
            mixed = self._http.headers.get("Transfer-Encoding") and self._http.headers.get("Content-Length")
            if self._http.will_close or mixed:
                self._wire.close()
                self._release(None)
            else:
                self._release(self._wire)

    def close(self) -> None:
        """Leave the rest of the body, and the connection with it."""
        if self._open:
            self._open = False
            self._wire.close()
            self._release(None)

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        """Read a short rest to its end, so that the connection can be used again."""
        length = self._http.length
        if self._open and kind is None and not self._http.will_close and (length is None or length <= _SHORT):
            self._wire.watch.hurry(_SHORT_TIME)
            with suppress(HttpError):
                for _ in self.chunks(_SHORT):
                    pass
        self.close()


class HttpClient:
    """A client of any servers. Safe for several threads.

    `trust` is the context of TLS, made when it is first needed.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext], proxies: Proxies | None = None) -> None:
        self._make_trust, self._proxies = trust, proxies or Proxies()
        self._lock = threading.Lock()
        self._trust: ssl.SSLContext | None = None
        self._kept: defaultdict[Origin, list[tuple[Wire, Stream]]] = defaultdict(list)
        self._closed = False

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            self._closed = True
            kept = [wire for pairs in self._kept.values() for wire, _ in pairs]
            self._kept.clear()
        for wire in kept:
            wire.close()

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
    ) -> Response:
        """Return the answer to a request. Raises HttpError.

        `secret` are headers for the origin of `url` alone. With `redirects`, an answer that names another place is followed,
        within the same limits; from https to http only when the place may be read by everybody (`plain`).
        """
        watch = Watch(limits or Limits())
        own = origin(url)
        for _ in range(_MOST_REDIRECTS):
            place = origin(url)
            sent = {**(headers or {}), **((secret or {}) if place == own else {})}
            response = self._ask(method, url, place, sent, body, watch)
            target = response.header("Location") if redirects and response.status in _REDIRECTS else ""
            if not target or (response.status in (301, 302, 303) and method not in ("GET", "HEAD")):
                return response
            with response:
                url = _joined(url, target)
            if place.scheme == "https" and origin(url).scheme == "http" and not plain:
                raise BadAnswer("it sends on from https to http")
        raise BadAnswer(f"it sends on more than {_MOST_REDIRECTS} times")

    def _ask(
        self, method: str, url: str, place: Origin, headers: Mapping[str, str], body: bytes | Body | None, watch: Watch
    ) -> Response:
        """Return the answer of one server. A connection that it closes without a word is replaced once, as kept ones may be."""
        proxy = self._proxies.of(place.scheme, place.host, place.port)
        target = _target(url)
        more = {}
        if proxy is not None and place.scheme == "http" and not proxy.scheme.startswith("socks5"):
            target = f"http://{place.authority}{target}"
            more = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        head = _head(method, target, {"Host": place.authority, **headers, **more}, body)
        for last in (False, True):
            wire, stream = (None if last else self._take(place)) or self._dial(place, proxy, watch)
            watch.answering = False
            wire.begin(watch)
            try:
                http = _exchange(wire, stream, method, head, body)
            except _BodyFailed as error:
                wire.close()
                raise error.cause from None
            except (HttpError, HTTPException, OSError, ValueError) as error:
                wire.close()
                if not last and not watch.answering and not isinstance(error, TooSlow):
                    continue
                raise error if isinstance(error, HttpError) else BadAnswer(reason(error)) from error
            except BaseException:
                wire.close()
                raise
            wire.begin_body()
            return Response(url, http, wire, lambda end, one=stream: self._put(place, end, one))  # type: ignore[misc]
        raise AssertionError

    def _dial(self, place: Origin, proxy: Proxy | None, watch: Watch) -> tuple[Wire, Stream]:
        wire = dial(place.scheme, place.host, place.port, proxy, self._context, watch)
        return wire, Stream(wire)

    def _take(self, place: Origin) -> tuple[Wire, Stream] | None:
        """Return a kept connection on which the server is still there and has said nothing."""
        while True:
            with self._lock:
                if not self._kept[place]:
                    return None
                wire, stream = self._kept[place].pop()
            if stream.is_empty() and wire.is_quiet():
                return wire, stream
            wire.close()

    def _put(self, place: Origin, wire: Wire | None, stream: Stream) -> None:
        if wire is None:
            return
        with self._lock:
            if not self._closed and len(self._kept[place]) < _KEPT:
                self._kept[place].append((wire, stream))
                return
        wire.close()

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._trust is None:
                self._trust = self._make_trust()
            return self._trust


def _exchange(wire: Wire, stream: Stream, method: str, head: bytes, body: bytes | Body | None) -> HTTPResponse:
    """Send a request and read the head of its answer, which may come before all of the body is sent."""
    try:
        wire.sendall(head + body if isinstance(body, bytes) else head)
        if isinstance(body, Body):
            _send(wire, body)
    except ConnectionError:
        if not body:
            raise
    http = _begun(stream, method)
    for _ in range(_INTERIM):
        if not 100 <= http.status < 200 or http.status == 101:
            return http
        http = _begun(stream, method)
    raise BadAnswer(f"it sends more than {_INTERIM} interim answers")


def _begun(stream: Stream, method: str) -> HTTPResponse:
    http = HTTPResponse(cast(socket.socket, _Made(stream)), method=method)
    http.begin()
    return http


class _Made:
    """What `HTTPResponse` takes for a socket."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> Stream:
        return self._stream


class _BodyFailed(Exception):
    """The body of a request cannot be read."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _pieces(body: Body) -> Iterator[bytes]:
    try:
        yield from body.chunks()
    except Exception as error:
        raise _BodyFailed(error) from error


def _send(wire: Wire, body: Body) -> None:
    sent = 0
    for chunk in _pieces(body):
        sent += len(chunk)
        if sent > body.size:
            break
        wire.sendall(chunk)
    if sent != body.size:
        raise _BodyFailed(BadAnswer(f"what is sent has not the {body.size} bytes that it should have"))


def _head(method: str, target: str, headers: Mapping[str, str], body: bytes | Body | None) -> bytes:
    """Return the request up to its body. Raises BadAnswer for a header that is none."""
    lines = [f"{method} {target} HTTP/1.1"]
    size = body.size if isinstance(body, Body) else len(body or b"")
    sized = {"Content-Length": str(size)} if body is not None or method in ("POST", "PUT") else {}
    for name, value in {"Host": headers["Host"], **_HEADERS, **headers, **sized}.items():
        if not _NAME.fullmatch(name) or _UNSAFE.search(value.replace("\t", " ")):
            raise BadAnswer(f"the header {name!r} cannot be sent: it has a character that headers cannot have")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _target(url: str) -> str:
    parts = urlsplit(url)
    return quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")


def _joined(url: str, target: str) -> str:
    """Return the place that an answer names, without a user and a password. Raises BadAnswer."""
    try:
        parts = urlsplit(urljoin(url, target))
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    except ValueError as error:
        raise BadAnswer("it sends on to what is no URL") from error
