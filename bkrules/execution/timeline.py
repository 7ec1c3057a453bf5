"""The timeline of a cell: the logs of all daemons and of the test in one file, in the order of time."""

from __future__ import annotations

import heapq
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bkrules.execution.layout import RESULT, TIMELINE
from bkrules.system.files import read_regular

_TIME = re.compile(r'(?:time="|.*?"time":")(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))"')
_MOST_RESULT = 16 << 20
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
    merged = entries(folder)
    width = max((len(name) for _, name, _ in merged), default=0)
    for time, name, text in merged:
        yield f"{time:9.3f}  {name:{width}}  {text}"


def entries(folder: Path, most: int = 0) -> list[Entry]:
    """Return the same lines as tuples: seconds since the cell began, the name of the log, and the text.

    Of each log only the last `most` bytes count, unless that is 0.
    """
    logs = [path for path in kept(folder, "*.log") if path.name not in (TIMELINE, "test.log")]
    merged = list(heapq.merge(*(_entries(path, most) for path in logs), key=lambda entry: entry[0]))
    began = _began(folder)
    if began is None:
        began = next((time for time, _, _ in merged if time), 0.0)
    return [(max(0.0, time - began), name, text) for time, name, text in merged]


def _entries(log: Path, most: int) -> Iterator[Entry]:
    """Yield the lines of a log with their times, which never decrease."""
    last = 0.0
    for line in _lines(log, most):
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


def _lines(log: Path, most: int) -> Iterable[str]:
    """Return the lines as their writers ended them, and not at every line separator of Unicode."""
    with open(log, encoding="utf-8", errors="replace", newline="\n") as file:
        if most and (size := os.fstat(file.fileno()).st_size) > most:
            file.seek(size - most)
            next(file, "")  # the rest of a line
        yield from (line.rstrip("\r\n") for line in file)


def _began(folder: Path) -> float | None:
    """Return when the cell began, in seconds since the epoch, from its result; None without a valid one: a test may write there."""
    try:
        document = json.loads(read_regular(folder / RESULT, _MOST_RESULT))
    except (OSError, ValueError, RecursionError):
        return None
    began = document.get("began") if isinstance(document, dict) else None
    return float(began) if isinstance(began, int | float) else None
