"""The credentials of a remote cache, as headers of each request."""

from __future__ import annotations

import base64
import os
from urllib.parse import unquote, urlsplit

from bkrules.cache.remote_options import RemoteOptions


def request_headers(options: RemoteOptions) -> dict[str, str]:
    """Return the headers of each request. `--remote_header` takes precedence over the URL, and the URL over `~/.netrc`."""
    parts = urlsplit(options.url)
    if parts.username:
        credentials: tuple[str, str] | None = (unquote(parts.username), unquote(parts.password or ""))
    else:
        credentials = _netrc(parts.hostname or "")
    headers = {}
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"
    named = {name.lower() for name, _ in options.headers}
    return {name: value for name, value in headers.items() if name.lower() not in named} | dict(options.headers)


def _netrc(host: str) -> tuple[str, str] | None:
    """Return the user and the password of a host in `$NETRC` or `~/.netrc`, where users of Bazel's cache keep them."""
    import netrc

    try:
        entry = netrc.netrc(os.environ.get("NETRC") or os.path.expanduser("~/.netrc")).authenticators(host)
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return None
    user, password = (entry[0] or entry[1] or "", entry[2] or "") if entry else ("", "")
    return (user, password) if user or password else None
