"""Versions of Go modules: semantic versions with a leading `v`, such as `v1.2.3-rc.1`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


@dataclass(frozen=True, order=True)
class Version:
    """A version. Versions are ordered by precedence: a release comes after its candidates."""

    major: int
    minor: int
    patch: int
    is_release: bool
    candidate: tuple[tuple[bool, int, str], ...]
    text: str

    @property
    def series(self) -> tuple[int, int]:
        """The series of which this is a patch release, as in 1.2."""
        return self.major, self.minor


def version_of(text: str) -> Version | None:
    """Return the version that a text is; None for another text."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    words = found[4].split(".") if found[4] else []
    candidate = tuple((not word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words)
    return Version(int(found[1]), int(found[2]), int(found[3]), not words, candidate, text)
