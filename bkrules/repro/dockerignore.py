"""Which files of a build context a .dockerignore leaves out, as BuildKit decides it.

https://docs.docker.com/build/concepts/context/#dockerignore-files, and the Go package github.com/moby/patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from bkrules.errors import UsageError

NAME = ".dockerignore"
_LITERAL = r".+(){}|$^"


@dataclass(frozen=True)
class _Pattern:
    matches: Callable[[str], object]
    is_exception: bool


class Ignored:
    """The patterns of a .dockerignore; none leave nothing out. Raises UsageError for a malformed pattern."""

    def __init__(self, text: str = "") -> None:
        lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#")]
        self._patterns = [pattern for line in lines if line and (pattern := _pattern(line)) is not None]

    @property
    def has_exceptions(self) -> bool:
        """Whether a file below a folder that is left out may be in the context."""
        return any(pattern.is_exception for pattern in self._patterns)

    def has(self, path: str) -> bool:
        """Return whether a path is left out: by a pattern for it, or for a folder in which it is."""
        found = False
        for pattern in self._patterns:
            if pattern.is_exception == found and any(map(pattern.matches, accumulate(path.split("/"), posixpath.join))):
                found = not found
        return found


def _pattern(line: str) -> _Pattern | None:
    """Return the pattern of a line; None for the context itself, which no line leaves out."""
    is_exception = line.startswith("!")
    path = posixpath.normpath(line[1:].strip() if is_exception else line).lstrip("/")
    if path in ("", "."):
        return None
    try:
        return _Pattern(re.compile(_expression(path), re.DOTALL).fullmatch, is_exception)
    except re.error as error:
        hint = "https://docs.docker.com/build/concepts/context/#syntax"
        raise UsageError("usage", f"{NAME}: the pattern {line!r} is malformed: {error}", hint=hint) from error


def _expression(path: str) -> str:
    found, at = "", 0
    while at < len(path):
        letter = path[at]
        at += 1
        if path.startswith("**", at - 1):
            at += 1
            if at == len(path):
                found += ".*"
            else:
                found += "(?:.*/)?"
                at += path.startswith("/", at)
        elif letter in "*?":
            found += "[^/]*" if letter == "*" else "[^/]"
        elif letter == "\\" and at < len(path):
            found += re.escape(path[at])
            at += 1
        else:
            found += re.escape(letter) if letter in _LITERAL else letter
    return found
