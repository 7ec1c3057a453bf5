"""The tests of a Go test binary, as it lists them itself."""

from __future__ import annotations

from dataclasses import dataclass

from bkrules.model.wire import Wire

LISTED = "tests.json"


@dataclass(frozen=True)
class GoTests(Wire):
    """The names of all tests that can be cells: `TestA`, and `TestB/sub/x=1` where the subtests of TestB are listed."""

    names: tuple[str, ...]
