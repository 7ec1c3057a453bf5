"""Data races that programs of a cell report: Go's race detector, in daemons and tests that are built with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from bkrules.cell.log_ends import end_of

_WARNING = "WARNING: DATA RACE"
_LONGEST = 200
_ACCESS = re.compile(r"(?:read|write) at 0x[0-9a-f]+ by .*:$", re.IGNORECASE)
_FUNCTION = re.compile(r"\S+\(.*\)$")


def race_in(logs: Path) -> str:
    """Return the first data race in the logs of a folder, as the program's name and both functions; usually empty."""
    for log in sorted(logs.glob("*.log")):
        _, warning, report = end_of(log).partition(_WARNING)
        if warning:
            functions = " and ".join(_functions(report.splitlines()[:_LONGEST]))
            return f"a data race in {log.stem}{': ' if functions else ''}{functions}"
    return ""


def _functions(lines: list[str]) -> Iterator[str]:
    """Yield the function of each access in a report. BuildKit's harness prefixes the lines of a daemon's log."""
    for line, following in pairwise(lines):
        if line.endswith("=" * 18):
            return
        function = _FUNCTION.search(following) if _ACCESS.search(line) else None
        if function:
            yield function[0]
