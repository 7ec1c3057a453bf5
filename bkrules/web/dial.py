"""A connection to a server: directly, or through a proxy of HTTP or SOCKS, with TLS or without."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from bkrules.web.errors import HttpError, Unreachable, Untrusted, reason
from bkrules.web.limits import Limits, Watch
from bkrules.web.proxies import Proxy
from bkrules.web.wire import Socket, Stream, Wire

_LEAST_TRY = 0.5  # seconds that each address of a name gets, while the time lasts
_OK = 200
Trust = Callable[[], ssl.SSLContext]


def dial(scheme: str, host: str, port: int, proxy: Proxy | None, trust: Trust, watch: Watch) -> Wire:
    """Return a connection over which a server of `scheme` can be asked. Raises HttpError."""
    until = time.monotonic() + min(watch.limits.connect, watch.left())
    try:
        if proxy is None:
            made = _open(host, port, until)
            return _wire(_secured(made, host, trust, until) if scheme == "https" else made, watch)
        made = _open(proxy.host, proxy.port, until)
        if proxy.scheme == "https":
            made = _secured(made, proxy.host, trust, until)
        try:
            wire = _wire(made, watch, until)
            if proxy.scheme.startswith("socks5"):
                _socks(wire, proxy, host, port)
            elif scheme == "https":
                _tunnel(wire, proxy, host, port)
            if scheme == "https":
                secured = _secured(made if not isinstance(made, ssl.SSLSocket) else wire, host, trust, until)
                return _wire(secured, watch)
        except BaseException:
            made.close()
            raise
        return wire
    except HttpError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(reason(error)) from error
    except (OSError, UnicodeError, ValueError, HTTPException) as error:
        raise Unreachable(_why(error, proxy)) from error


def _why(error: Exception, proxy: Proxy | None) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    text = f"{error}" if isinstance(error, UnicodeError) else reason(error)
    return f"its proxy {proxy.host}:{proxy.port}: {text}" if proxy else text


def _wire(sock: Socket, watch: Watch, until: float | None = None) -> Wire:
    wire = Wire(sock, watch.limits)
    if until is not None:
        left = max(0.001, until - time.monotonic())
        wire.begin(Watch(Limits(connect=left, idle=left, total=left)))
    return wire


def _open(host: str, port: int, until: float) -> socket.socket:
    """Return a connection to the first address of a host that takes one. Raises OSError."""
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


def _secured(made: socket.socket | Wire, host: str, trust: Trust, until: float) -> Any:
    """Return the connection with TLS. Raises OSError."""
    try:
        context = trust()
        if isinstance(made, Wire):
            from urllib3.util.ssltransport import SSLTransport

            return SSLTransport(cast(socket.socket, made), context, host)
        made.settimeout(max(0.001, until - time.monotonic()))
        return context.wrap_socket(made, server_hostname=host)
    except BaseException:
        made.close()
        raise


def _tunnel(wire: Wire, proxy: Proxy, host: str, port: int) -> None:
    """Have a proxy of HTTP join the connection to a server. Raises Unreachable."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    head += [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []
    wire.sendall("\r\n".join([*head, "", ""]).encode("idna" if not place.isascii() else "ascii"))
    stream = Stream(wire)
    answer = HTTPResponse(cast(socket.socket, _Made(stream)), method="CONNECT")
    answer.begin()
    if answer.status != _OK:
        hint = ": it wants credentials, or others" if answer.status == 407 else ""
        raise Unreachable(f"its proxy {proxy.host}:{proxy.port}: status {answer.status}{hint}")
    if not stream.is_empty():
        raise Unreachable(f"its proxy {proxy.host}:{proxy.port}: bytes before those of the server")


class _Made:
    """What `HTTPResponse` takes for a socket."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> Stream:
        return self._stream


def _socks(wire: Wire, proxy: Proxy, host: str, port: int) -> None:
    """Have a proxy of SOCKS 5 join the connection to a server, whose name it resolves. Raises Unreachable.

    https://www.rfc-editor.org/rfc/rfc1928 and rfc1929
    """

    def get(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = wire.recv(size - len(data))
            if not piece:
                raise Unreachable(f"its proxy {proxy.host}:{proxy.port} closed the connection")
            data += piece
        return data

    def refuse(what: str) -> Unreachable:
        return Unreachable(f"its proxy {proxy.host}:{proxy.port} {what}")

    methods = b"\x00\x02" if proxy.user else b"\x00"
    wire.sendall(bytes([5, len(methods)]) + methods)
    version, method = get(2)
    if version != 5 or method not in methods:
        raise refuse("wants credentials, or others" if version == 5 else "does not speak SOCKS 5")
    if method == 2:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        wire.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if get(2)[1]:
            raise refuse("does not take these credentials")
    wire.sendall(b"\x05\x01\x00" + _address(host) + struct.pack(">H", port))
    version, status, _, kind = get(4)
    if version != 5 or status:
        raise refuse(f"cannot reach the server: SOCKS status {status}")
    get({1: 4, 3: 0, 4: 16}.get(kind, 0) if kind != 3 else get(1)[0])
    get(2)


def _address(host: str) -> bytes:
    for family, kind in ((socket.AF_INET, 1), (socket.AF_INET6, 4)):
        try:
            return bytes([kind]) + socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
    name = host.encode("idna")
    return bytes([3, len(name)]) + name
