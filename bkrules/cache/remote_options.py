"""The options of a remote cache, separate from its client, since every command imports this module."""

from __future__ import annotations

from dataclasses import dataclass, field

from bkrules.errors import UsageError


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """The options of a remote cache. `timeout` is in seconds, for one request with all of its bytes.

    The secrets, which are the credentials in `url` and the `headers`, are in no repr.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    upload: bool = True
    required: bool = False
    timeout: float = 60.0
    certificate: str = ""

    @property
    def address(self) -> str:
        """The URL without user and password. Raises UsageError when its scheme is not http or https."""
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
            port = parts.port
        except ValueError:
            good, port = None, None
        if not good:
            what = "--remote_cache must be http://HOST:PORT/PATH or https://HOST:PORT/PATH"
            raise UsageError("remote-cache", what, hint="for example --remote_cache=https://cache.example.com/bk")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
