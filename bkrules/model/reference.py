"""References: the names of images, `docker.io/library/busybox:latest`."""

from __future__ import annotations

import re
from dataclasses import dataclass

ALL = "all"
"""The platform value with which bk keeps an index whole."""

_LONGEST = 255  # characters of a repository, as registries have it
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?)/(?P<repository>{_PART}(?:/{_PART})*):(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})"
)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A fully written reference: `host/repository:tag`."""

    host: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """Return the reference that `text` spells out in full. Raises ValueError: bk fills in no missing part, so it never
    guesses.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or not ("." in match["host"] or ":" in match["host"] or match["host"] == "localhost"):
        raise ValueError(
            f"{text!r} is not a full reference; write 'host/repository:tag', as in 'docker.io/library/busybox:latest'"
        )
    if len(match["repository"]) > _LONGEST:
        raise ValueError(f"{text[:40]!r}... has a repository of more than {_LONGEST} characters")
    return Reference(match["host"], match["repository"], match["tag"])
