"""The proxy of a request, by the environment variables and rules of Go's net/http, which the daemons in cells follow too.

https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bkrules.web.errors import Unreachable

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_NO_HOST = re.compile(r"""[\x00-\x20\x7f"'<>\\^`{|}]""")
PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Proxy:
    """A proxy: its scheme (`http`, `https`, `socks5` or `socks5h`), its address, and the credentials for it."""

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The address of the proxy, without the credentials."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_socks(self) -> bool:
        """Whether the proxy speaks SOCKS instead of HTTP."""
        return self.scheme.startswith("socks5")

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization, or an empty text."""
        if not self.user and not self.password:
            return ""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


class Proxies:
    """The proxies that an environment names. `environment` is read once, at the first call."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def of(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for a server, or None. The loopback never has a proxy. Raises Unreachable for an invalid variable."""
        text = self._urls.get(scheme, "")
        if not text or self._is_direct(host, port):
            return None
        if scheme == "http" and self._get("REQUEST_METHOD"):
            raise Unreachable("HTTP_PROXY is not used where REQUEST_METHOD is set: a client of CGI may have sent it")
        return _parse(text, f"{scheme}_proxy")

    def _get(self, *names: str) -> str:
        return next((value for name in names if (value := self._environment.get(name, ""))), "")

    @cached_property
    def _urls(self) -> dict[str, str]:
        return {"http": self._get("HTTP_PROXY", "http_proxy"), "https": self._get("HTTPS_PROXY", "https_proxy")}

    @cached_property
    def _exceptions(self) -> NoProxy:
        return NoProxy(self._get("NO_PROXY", "no_proxy"))

    def _is_direct(self, host: str, port: int) -> bool:
        ip = _ip(host)
        if host.lower() == "localhost" or (ip is not None and ip.is_loopback):
            return True
        return self._exceptions.match(host, port)


class NoProxy:
    """The servers that NO_PROXY lists, separated by commas.

    `*` matches every server; `example.com` matches that name and all below it; `.example.com` and `*.example.com` match
    only names below it; an address, `10.0.0.0/8`, or `2001:db8::/32` matches that address or network. A name or an
    address may end with a port, and an IPv6 address then stands in brackets.
    """

    def __init__(self, text: str) -> None:
        self._all = False
        self._networks: list[IPv4Network | IPv6Network] = []
        self._addresses: list[tuple[IPv4Address | IPv6Address, str]] = []
        self._names: list[tuple[str, str, bool]] = []
        for word in text.split(","):
            self._add(word.strip().lower())

    def _add(self, word: str) -> None:
        if word == "*":
            self._all = True
            return
        if (network := _network(word)) is not None:
            self._networks.append(network)
            return
        host, port = _split_port(word)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if (ip := _ip(host)) is not None:
            self._addresses.append((ip, port))
        elif host.lstrip("*"):
            name = host[1:] if host.startswith("*.") else host
            self._names.append((_ascii(name if name.startswith(".") else f".{name}"), port, not name.startswith(".")))

    def match(self, host: str, port: int) -> bool:
        """Return whether a server is listed."""
        if self._all:
            return True
        ip = _ip(host)
        if ip is not None:
            return any(ip == one and wanted in ("", str(port)) for one, wanted in self._addresses) or any(
                ip in network for network in self._networks
            )
        name = _ascii(host.strip().lower())
        return any(
            (name.endswith(suffix) or (itself and name == suffix[1:])) and wanted in ("", str(port))
            for suffix, wanted, itself in self._names
        )


def _parse(text: str, variable: str) -> Proxy:
    """Return the proxy that a variable names; without a scheme it is an HTTP proxy."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = None, None, None
    if parts is None or not host or _NO_HOST.search(host):
        raise Unreachable(f"{variable} names no proxy: it must be http://HOST:PORT")
    if parts.scheme not in PORTS:
        raise Unreachable(f"{variable} names a proxy of the scheme {parts.scheme!r}: known are {', '.join(PORTS)}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Proxy(parts.scheme, host, port or PORTS[parts.scheme], user, password)


def _split_port(word: str) -> tuple[str, str]:
    """Return host and port of `host:port`. A bare IPv6 address has no port."""
    host, colon, port = word.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or "]" in port:
        return word, ""
    return host, port


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """Return a host's IP address, without its zone. An IPv4 address mapped into IPv6 counts as IPv4."""
    if not host[-1:].isdigit() and ":" not in host:
        return None
    import ipaddress

    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def _network(word: str) -> IPv4Network | IPv6Network | None:
    address, slash, bits = word.partition("/")
    if not slash or not bits.isdecimal():
        return None
    import ipaddress

    try:
        return ipaddress.ip_network(f"{address}/{bits}", strict=False)
    except ValueError:
        return None


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    dot = "." if name.startswith(".") else ""
    try:
        return dot + name.removeprefix(".").encode("idna").decode()
    except UnicodeError:
        return name
