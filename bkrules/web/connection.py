"""urllib3's connections, which read and send each byte under the limits of the request that uses them."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import urllib3
import urllib3.exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.poolmanager import PoolManager, ProxyManager

from bkrules.web.errors import BadAnswer, HttpError, Unreachable, Untrusted, reason
from bkrules.web.limits import Limits, Watch
from bkrules.web.proxies import Proxy
from bkrules.web.wire import Wire

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_KEPT = 32  # connections to a server
_LEAST_TRY = 0.5  # seconds for each address of a name, within the limit
_INTERIM = 10  # interim answers before the final one
_REFUSED = re.compile(r"Tunnel connection failed: (\d+)")


class _PendingRequest(threading.local):
    """The request that this thread is about to send."""

    watch: Watch


_asked = _PendingRequest()


class _Answer(http.client.HTTPResponse):
    """An answer, with any interim answers skipped."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_INTERIM):
            version, status, words = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, words
            http.client.parse_headers(self.fp)
        raise BadAnswer(f"it sends more than {_INTERIM} interim answers")


class _Limited(HTTPConnection):
    """A connection under limits. `socks` is the SOCKS proxy through which it goes, if any."""

    response_class = _Answer
    socks: Proxy | None = None
    _dialling: Watch

    def _new_conn(self) -> socket.socket:
        patience = min(_asked.watch.limits.connect, _asked.watch.left())
        until = time.monotonic() + patience
        self._dialling = Watch(Limits(patience, patience, patience))
        if self.socks is None:
            made = _open(self._dns_host, self.port, until)
        else:
            made = _open(self.socks.host, self.socks.port, until)
            try:
                _through_socks(Wire(made, self._dialling), self.socks, self._dns_host, self.port)
            except BaseException:
                made.close()
                raise
        made.settimeout(max(0.001, until - time.monotonic()))  # for TLS
        return made

    def _tunnel(self) -> None:
        own = self.sock
        self.sock = cast(socket.socket, Wire(own, self._dialling))
        super()._tunnel()
        self.sock = own

    def connect(self) -> None:
        try:
            super().connect()
        except (OSError, http.client.HTTPException, ValueError, urllib3.exceptions.HTTPError) as error:
            raise self._described(error) from error
        self.sock = cast(socket.socket, Wire(self.sock, _asked.watch))

    def _described(self, error: Exception) -> HttpError:
        """Return why a connection failed."""
        proxy = self.proxy or self.socks
        where = f"its proxy {proxy.host}:{proxy.port}: " if proxy is not None else ""
        if isinstance(error, HttpError):
            return error
        if isinstance(error, ssl.SSLCertVerificationError):
            return Untrusted(f"{where}{reason(error)}")
        if isinstance(error, TimeoutError):
            return Unreachable("no connection in time")
        if refused := _REFUSED.search(str(error)):
            hint = ": it requires other credentials" if refused[1] == "407" else ""
            return Unreachable(f"{where}status {refused[1]}{hint}")
        return Unreachable(f"{where}{error if isinstance(error, UnicodeError) else reason(error)}")

    @property
    def is_connected(self) -> bool:
        """Whether the server is still connected, and has sent no unsolicited bytes."""
        return super().is_connected and not cast(Wire, self.sock).has_pending()

    def request(self, *words: Any, **named: Any) -> None:
        if self.sock is not None:
            cast(Wire, self.sock).begin(_asked.watch)
        super().request(*words, **named)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        wire = cast(Wire, self.sock)
        wire.watch.expect_head()
        response = super().getresponse()
        wire.begin_body()
        response.wire = wire  # type: ignore[attr-defined]
        return response


class _Secured(_Limited, HTTPSConnection):
    """A limited connection with TLS."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        return cast(ssl.SSLSocket, Wire(super()._connect_tls_proxy(hostname, sock), self._dialling))


def manager(proxy: Proxy | None, trust: ssl.SSLContext | None) -> PoolManager:
    """Return a pool of connections to any servers, through a proxy or directly. `trust` is needed when one of them uses TLS."""
    more: dict[str, Any] = {"maxsize": _KEPT, "ssl_context": trust}
    if proxy is None or proxy.is_socks:
        made = PoolManager(**more)
    else:
        credentials = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        made = ProxyManager(proxy.url, proxy_headers=credentials, proxy_ssl_context=trust, **more)
    through = {"socks": proxy if proxy is not None and proxy.is_socks else None}
    made.pool_classes_by_scheme = {
        "http": type("_Pool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": type("_Plain", (_Limited,), through)}),
        "https": type("_Pool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": type("_Tls", (_Secured,), through)}),
    }
    return made


def ask(pools: PoolManager, watch: Watch, method: str, url: str, **more: Any) -> BaseHTTPResponse:
    """Return the answer of a server, whatever its status; its body is not read. Raises the errors of urllib3, and HttpError."""
    _asked.watch = watch
    return pools.urlopen(
        method, url, redirect=False, retries=False, preload_content=False, decode_content=False, timeout=None, **more
    )


def _open(host: str, port: int | None, until: float) -> socket.socket:
    """Return a connection to the first address of a host that accepts one. Raises OSError."""
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    problem: OSError = OSError("it has no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(min(left, max(left / (len(found) - number), _LEAST_TRY)))
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            made.close()
            problem = error
    raise problem


def _through_socks(wire: Wire, proxy: Proxy, host: str, port: int | None) -> None:
    """Let a SOCKS 5 proxy connect to a server, whose name the proxy resolves. Raises Unreachable.

    https://www.rfc-editor.org/rfc/rfc1928 and rfc1929
    """

    def get(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = wire.recv(size - len(data))
            if not piece:
                raise refuse("closed the connection")
            data += piece
        return data

    def refuse(what: str) -> Unreachable:
        return Unreachable(f"its proxy {proxy.host}:{proxy.port} {what}")

    methods = b"\x00\x02" if proxy.user else b"\x00"
    wire.sendall(bytes([5, len(methods)]) + methods)
    version, method = get(2)
    if version != 5 or method not in methods:
        raise refuse("requires other credentials" if version == 5 else "does not speak SOCKS 5")
    if method == 2:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        wire.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if get(2)[1]:
            raise refuse("does not take these credentials")
    wire.sendall(b"\x05\x01\x00" + _address(host) + struct.pack(">H", port))
    version, status, _, kind = get(4)
    if version != 5 or status:
        raise refuse(f"cannot reach the server: SOCKS status {status}")
    get({1: 4, 4: 16}[kind] if kind in (1, 4) else get(1)[0])
    get(2)


def _address(host: str) -> bytes:
    for family, kind in ((socket.AF_INET, 1), (socket.AF_INET6, 4)):
        try:
            return bytes([kind]) + socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
    name = host.encode("idna")
    return bytes([3, len(name)]) + name
