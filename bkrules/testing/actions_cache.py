"""The cache service of GitHub Actions beside a backend, in the same cell: that of act, on a folder of the cell."""

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
    """A service, empty at first. Its `url`, which ends with `/`, has the secret in it that opens it."""

    url: str

    def cache(self, *, branch: str = "refs/heads/main", expires: int = _NEVER, **more: str) -> str:
        """Return a cache in the service, as `--export-cache` and `--import-cache` want it; `more` adds attributes or replaces them.

        The token says for which branch it is, and until when, in seconds since 1970; BuildKit reads it, and this service does not.
        """
        token = _token({"ac": json.dumps([{"Scope": branch, "Permission": _READ_AND_WRITE}]), "nbf": 0, "exp": expires})
        attributes = {"type": "gha", "version": "1", "url": self.url, "token": token, **more}
        return ",".join(f"{name}={value}" for name, value in attributes.items())


@contextmanager
def actions_cache(log_folder: Path) -> Iterator[ActionsCache]:
    """A service of this cell, for as long as the context lasts; its log is in `log_folder`.

    Raises RuntimeError when the cell has no actions-cache, and when it does not start.
    """
    log = log_folder / f"{TOOL}.log"
    arguments = [TOOL, "-dir", tempfile.mkdtemp(prefix=f"{TOOL}-")]
    with running(arguments, log, lambda: re.findall(r"listening at (http://[^\s\"]+)", log.read_text())) as urls:
        yield ActionsCache(urls[-1])


def _token(claims: object) -> str:
    """Return a JSON Web Token that nobody signed."""
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"unsigned")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
