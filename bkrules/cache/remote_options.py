"""The options of a remote cache, separate from its client, since every command imports this module."""

from __future__ import annotations

from dataclasses import dataclass, field

from bkrules.errors import UsageError

GRPC = ("grpc://", "grpcs://")
ABSENCE = 30.0
"""Seconds for which an engine or its storage that has answered may be gone, as one that begins again."""
SCHEMES = ("http", "https", "grpc", "grpcs")
DOWNLOADS = (MINIMAL, TOPLEVEL, ALL) = ("minimal", "toplevel", "all")
"""The outputs that bk fetches from a remote cache though nothing here needs them: none, those of requested targets, all."""


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """The options of a remote cache. `timeout` is in seconds, for one request with all of its bytes. `certificate` is
    the file of the trusted authority, and `client` the files of the client's certificate and its key. `option` is the
    option of the command line that names the server. A server that has answered may be gone for `absence` seconds.

    The secrets, which are the credentials in `url` and the `headers`, are in no repr.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    upload: bool = True
    required: bool = False
    timeout: float = 60.0
    certificate: str = ""
    client: tuple[str, str] | None = None
    instance: str = ""
    option: str = "--remote_cache"
    absence: float = 0.0

    @property
    def is_grpc(self) -> bool:
        """Whether the server speaks gRPC."""
        return self.url.startswith(GRPC)

    @property
    def address(self) -> str:
        """The URL without user and password. Raises UsageError when it is none of such a server."""
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(self.url)
            good = parts.scheme in SCHEMES and parts.hostname and not parts.query and not parts.fragment
            port = parts.port
        except ValueError:
            good, port = None, None
        if not good:
            what = f"{self.option} must be a URL of http, https, grpc or grpcs"
            hint = (
                f"for example {self.option}=https://cache.example.com/bk or {self.option}=grpcs://cache.example.com:443"
            )
            raise UsageError("remote-cache", what, hint=hint)
        if self.is_grpc and parts.path.strip("/"):
            what = f"{self.option}: a URL of gRPC has no path"
            raise UsageError("remote-cache", what, hint="name the instance with --remote_instance_name")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """The options of an engine that runs actions. `server` has its address and how to reach it. At most `jobs` actions are
    there at once; each may be `queue_seconds` in its queue. `fallback`: this machine runs what it fails to run.
    `local` are the mnemonics of actions that stay on this machine.
    """

    server: RemoteOptions
    jobs: int
    queue_seconds: float
    fallback: bool = False
    local: frozenset[str] = frozenset()

    @property
    def threads(self) -> int:
        """How many actions are on their way at once: those that are there, and some whose inputs are sent meanwhile."""
        return self.jobs + self.jobs // 8
