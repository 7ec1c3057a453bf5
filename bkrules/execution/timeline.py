"""The timeline of a cell: the logs of all daemons and of the test in one file, in the order of time."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bkrules.execution.layout import RESULT, TIMELINE

_TIME = re.compile(r'(?:time="|.*?"time":")(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))"')
Entry = tuple[float, str, str]


def write(folder: Path) -> None:
    """Write the timeline of a cell next to its logs in `folder`."""
    with open(folder / TIMELINE, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines(folder))


def kept(folder: Path, pattern: str) -> list[Path]:
    """Yield the files of a cell's folder that match. Links are ignored: after a kill of bk, the test's own files are
    still there.
    """
    return [path for path in sorted(folder.glob(pattern)) if path.is_file() and not path.is_symlink()]


def lines(folder: Path) -> Iterator[str]:
    """Yield the lines of all logs except the test's, each with the seconds since the cell began and the name of its log.

    A line without a time belongs to the line before it. A daemon that logs whole seconds, as buildkitd does, has its
    lines first in each second.
    """
    logs = [path for path in kept(folder, "*.log") if path.name not in (TIMELINE, "test.log")]
    entries = list(heapq.merge(*(_entries(path) for path in logs), key=lambda entry: entry[0]))
    began = _began(folder)
    if began is None:
        began = next((time for time, _, _ in entries if time), 0.0)
    width = max((len(path.stem) for path in logs), default=0)
    for time, name, text in entries:
        yield f"{max(0.0, time - began):9.3f}  {name:{width}}  {text}"


def _entries(log: Path) -> Iterator[Entry]:
    """Yield the lines of a log with their times, which never decrease."""
    last = 0.0
    for line in _lines(log):
        match = _TIME.match(line)
        if match:
            last = max(last, _seconds(match[1]))
        yield last, log.stem, line


def _seconds(text: str) -> float:
    """Return a time in seconds since the epoch, or 0 for an invalid one: anybody in a cell may write a log."""
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _lines(log: Path) -> Iterable[str]:
    """Return the lines as their writers ended them, and not at every line separator of Unicode."""
    with open(log, encoding="utf-8", errors="replace", newline="\n") as file:
        yield from (line.rstrip("\r\n") for line in file)


def _began(folder: Path) -> float | None:
    """Return when the cell began, in seconds since the epoch, from its result."""
    try:
        document = json.loads((folder / RESULT).read_text())
    except FileNotFoundError:
        return None
    began = document.get("began")
    return float(began) if began is not None else None
