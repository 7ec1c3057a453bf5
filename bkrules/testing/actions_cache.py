"""The cache service of GitHub Actions for a backend, in the same cell: act's implementation, on a folder of the cell."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bkrules.testing.started import running

TOOL = "actions-cache"
_READ_AND_WRITE = 3
_NEVER = 1 << 32


@dataclass(frozen=True)
class ActionsCache:
    """A service, empty at first. Its `url` ends with `/` and contains the secret."""

    url: str

    def cache(self, *, branch: str = "refs/heads/main", expires: int = _NEVER, **more: str) -> str:
        """Return a cache in the service, for `--export-cache` and `--import-cache`; `more` adds or replaces attributes.

        The token names the branch and the expiry, in seconds since 1970, which BuildKit reads and this service ignores.
        """
        token = _token({"ac": json.dumps([{"Scope": branch, "Permission": _READ_AND_WRITE}]), "nbf": 0, "exp": expires})
        attributes = {"type": "gha", "version": "1", "url": self.url, "token": token, **more}
        return ",".join(f"{name}={value}" for name, value in attributes.items())


@contextmanager
def actions_cache(log_folder: Path) -> Iterator[ActionsCache]:
    """Run a service in this cell for as long as the context lasts; its log is in `log_folder`.

    Raises RuntimeError when the cell has no actions-cache, and when it does not start.
    """
    log = log_folder / f"{TOOL}.log"
    arguments = [TOOL, "-dir", tempfile.mkdtemp(prefix=f"{TOOL}-")]
    with running(arguments, log, lambda: re.findall(r"listening at (http://[^\s\"]+)", log.read_text())) as urls:
        yield ActionsCache(urls[-1])


def _token(claims: object) -> str:
    """Return an unsigned JSON Web Token."""
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"unsigned")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
