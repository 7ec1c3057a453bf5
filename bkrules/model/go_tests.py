"""The tests of a Go test binary, as it lists them itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bkrules.model.wire import Wire

LISTED = "tests.json"
_QUOTED = r"\\\1"
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")


def pattern(name: str) -> str:
    """Return the pattern of `-test.run` and `-test.skip` that matches a test of this name alone."""
    return "/".join(f"^{_SPECIAL.sub(_QUOTED, part)}$" for part in name.split("/"))


@dataclass(frozen=True)
class GoTests(Wire):
    """The names of all tests that can be cells: `TestA`, and `TestB/sub/x=1` where the subtests of TestB are listed."""

    names: tuple[str, ...]
