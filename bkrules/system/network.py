"""The words of a command that nobody answers."""

from __future__ import annotations

import re

HINT = "check the network of this machine, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_NO_NETWORK = re.compile(
    r"dial tcp|no such host|[Cc]onnection (?:refused|reset)|i/o timeout|TLS handshake|network is unreachable|x509:"
    r"|server misbehaving|proxyconnect|unexpected EOF|: 5\d\d |: 407 |: 429 |disabled by GOPROXY=off"
    r"|NewConnectionError|ConnectTimeoutError|ProxyError|NameResolutionError"
)


def no_network(text: str) -> bool:
    """Return whether Go or pip failed because nobody answered, by what it printed."""
    return _NO_NETWORK.search(text) is not None
