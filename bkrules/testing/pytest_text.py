"""The texts that pytest prints, as bk reads them without pytest."""

from __future__ import annotations

import re

ROOT = "/src"
"""The folder with the files of the workspace for pytest."""
OWN_TEST = ".bk/test_build.py"
"""bk's own test in that folder, for builds that are declared; its failures need no place."""
REPORTS = "pytest.json"
"""pytest's reports on the test of a cell, among its logs; a cached cell has none."""
PATIENCE = 60
"""The limit in seconds for the import and the collection of one module."""
_INNERMOST_FIRST = "(most recent call first)"
_PLACE = re.compile(
    r"^(?:E\s+|\s+)?(?:File \"(?P<file>[^\"\n]+)\", line (?P<at>\d+)|(?P<path>[^\s:\"]+\.py):(?P<line>\d+)(?=:|$))",
    re.M,
)


def place_in(text: str) -> str:
    """Return `file:line` of the innermost place in a traceback that is a file of the workspace; empty without one.

    faulthandler's tracebacks begin with the innermost place, all others end with it.
    """
    if _INNERMOST_FIRST in text:
        text = "\n".join(reversed(text.splitlines()))
    found = ""
    for match in _PLACE.finditer(text):
        path = match["file"] or match["path"]
        if path.startswith(f"{ROOT}/") or not path.startswith(("/", "<")):
            found = f"{path.removeprefix(f'{ROOT}/')}:{match['at'] or match['line']}"
    return found


def last_line(text: str) -> str:
    """Return the line with the error in a text of pytest."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    errors = [line[2:].strip() for line in lines if line.startswith("E  ")]
    named = [line for line in errors if re.match(r"[\w.]+(Error|Exception|Failed|Exit)\b", line)]
    return (named or errors or lines or ["pytest gives no reason"])[-1]
