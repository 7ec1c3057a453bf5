"""The failures of a build, for one screen: an excerpt of each, and one block for all cells that failed alike."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bkrules.execution.layout import TIMELINE
from bkrules.execution.result import Result
from bkrules.model.status import BAD, GOOD, FailureClass
from bkrules.report.output import LOG, folder_of
from bkrules.system.files import read_text
from bkrules.testing.pytest_text import ROOT

TEST_LINES = 20
DAEMON_LINES = 8
ERROR_LINES = 3
CAPTURED_LINES = 3
LINE_WIDTH = 240
_MOST_ROWS = 8
_CONTEXT = 2
_SECTION = re.compile(r"={3,} (?:FAILURES|ERRORS) ={3,}")
_CAPTURED = re.compile(r"-{3,} Captured .* call -{3,}")
_SECTION_END = re.compile(r"-{3,} Captured .*|={3,} .*={3,}|_{3,} .* _{3,}")
_ENTRY_END = re.compile(r"(?:_ ){3,}_?")
_PLACE = re.compile(r"(\S[^:]*):\d+:")
_SHORT_ENTRY = re.compile(rf"{_PLACE.pattern} in ")
_DAEMON_ERROR = re.compile(r"\blevel=(?:error|fatal|panic)\b|^panic: |^fatal error: |^WARNING: DATA RACE")
_OF_TESTS = (FailureClass.NONE, FailureClass.TEST)


@dataclass(frozen=True)
class Failure:
    """Cells that failed alike: with the same status and reason, and after the same number of attempts."""

    results: tuple[Result, ...]

    @property
    def title(self) -> str:
        """The name of the first cell, and the number of the others."""
        cell = self.results[0].action.cell
        assert cell is not None
        others = len(self.results) - 1
        return f"{cell.name} and {others} more" if others else cell.name


def failures(results: Iterable[Result]) -> list[Failure]:
    """Return the failures of cells, those that are alike as one."""
    found: dict[object, list[Result]] = {}
    for result in results:
        if result.action.cell is not None and result.status in BAD:
            attempts = len(result.ran.attempts) if result.ran else 0
            egress = result.ran.egress if result.ran else ()
            alike = (result.status, result.failure, attempts, result.reason, result.hint, egress)
            found.setdefault(alike, []).append(result)
    return [Failure(tuple(alike)) for alike in found.values()]


def excerpt(failure: Failure, out: Path, width: int = LINE_WIDTH) -> str:
    """Return the part of the first cell's logs that tells of the failure; empty when there is none.

    That is pytest's traceback, or the end of the test's output. The ends of the daemons' logs follow when the failure is
    not the test's, and otherwise only lines with errors. A line has up to `width` characters.
    """
    result = failure.results[0]
    assert result.action.cell is not None
    folder = out / folder_of(result.action.cell)
    logs = {path.name: path for path in sorted(folder.glob("*.log")) if path.is_file() and path.name != TIMELINE}
    is_of_test = result.failure in (*_OF_TESTS, FailureClass.TIMEOUT)
    lines = []
    if LOG in logs:
        text = read_text(logs.pop(LOG))
        tail = text.splitlines()[-(TEST_LINES if is_of_test else DAEMON_LINES) :]
        lines += (traceback_in(text) if is_of_test else []) or tail
    for name, path in logs.items():
        said = read_text(path).splitlines()
        said = [line for line in said if _DAEMON_ERROR.search(line)][-ERROR_LINES:] if is_of_test else said
        lines += [f"  {name}", *(f"    {line}" for line in said[-DAEMON_LINES:])] if said else []
    if not lines:
        return ""
    head = f" {failure.title} ".center(min(width, 80), "_")
    return "\n".join([head, *(_cut(line, width) for line in lines)])


def traceback_in(log: str) -> list[str]:
    """Return pytest's own section on a failure in its output: the source, the error, the place, and what the test printed last."""
    lines = log.splitlines()
    begin = next((number for number, line in enumerate(lines) if _SECTION.fullmatch(line)), None)
    if begin is None:
        return []
    section = _of_the_test([line.removeprefix(f"{ROOT}/") for line in _until_the_end(lines[begin + 2 :])])
    marks = [number for number, line in enumerate(section) if line.startswith(">")]
    section = [line for line in section[max(0, marks[-1] - _CONTEXT) if marks else 0 :] if line]
    if len(section) > TEST_LINES:
        left_out = len(section) - TEST_LINES + 1
        section[TEST_LINES - 2 : -1] = [f"... {left_out} more lines"]
    for number, line in enumerate(lines):
        if number > begin and _CAPTURED.fullmatch(line):
            section += [line, *_until_the_end(lines[number + 1 :])[-CAPTURED_LINES:]]
    return section


def _of_the_test(section: Sequence[str]) -> list[str]:
    """Return a traceback up to its last entry in a file of the workspace. The error follows when a library raised it."""
    entries: list[list[str]] = [[]]
    for line in section:
        if _ENTRY_END.fullmatch(line) or _SHORT_ENTRY.match(line):
            entries.append([])
        if not _ENTRY_END.fullmatch(line):
            entries[-1].append(line)
    last = next((at for at, entry in reversed(list(enumerate(entries))) if _is_own(entry)), len(entries) - 1)
    if last == len(entries) - 1:
        return list(section)
    error = itertools.dropwhile(lambda line: not line.startswith("E "), entries[-1])
    return [*entries[last], *error]


def _is_own(entry: Sequence[str]) -> bool:
    """Return whether an entry of a traceback is about a file of the workspace, whose path is relative."""
    places = [found[1] for line in entry if (found := _PLACE.match(line))]
    return bool(places) and not places[-1].startswith(("/", "..", "<"))


def _until_the_end(lines: Iterable[str]) -> list[str]:
    """Return the lines of a section of pytest's output, without empty ones at its end."""
    section = [line.rstrip() for line in itertools.takewhile(lambda line: not _SECTION_END.fullmatch(line), lines)]
    while section and not section[-1]:
        section.pop()
    return section


def cause(failure: Failure, all_results: Iterable[Result], log: str) -> str:
    """Return the status, the reason and the cells of a failure, and the commands with which to look further.

    `log` is the path of the first cell's log; empty without one.
    """
    result = failure.results[0]
    assert result.action.cell is not None
    kinds: list[str] = [result.failure] if result.failure not in _OF_TESTS else []
    attempts = len(result.ran.attempts) if result.ran else 0
    kinds += [f"{attempts} attempts"] if attempts > 1 else []
    kind = f" ({', '.join(kinds)})" if kinds else ""
    count = len(failure.results)
    who = result.action.cell.name if count == 1 else f"{count} cells"
    lines = [f"{result.status.upper()}{kind}: {who}: {result.reason}"]
    lines += [f"  {line}" for line in _rows(failure.results)] if count > 1 else []
    lines += [f"  only with {blamed}" for blamed in blame(failure, all_results)]
    lines += [f"  {line}" for line in result.hint.splitlines()]
    lines += [f"  {who} tried to reach {what}" for who, what in (result.ran.egress if result.ran else ())]
    if log:
        lines += [f"  see {log}", f"  try: bk shell --at_failure '{result.action.cell.label}'"]
    return "\n".join(lines)


def blame(failure: Failure, all_results: Iterable[Result]) -> list[str]:
    """Return the axis value that all cells of a failure have, and no other cell of their tests, when the others passed."""
    tests = {_test(result) for result in failure.results}
    ran = [result for result in all_results if result.action.cell is not None and result.status in GOOD | BAD]
    others = [result for result in ran if _test(result) in tests and result not in failure.results]
    if not others or any(result.status in BAD for result in others):
        return []
    own = [_point(result) for result in failure.results]
    good = [_point(result) for result in others]
    for axis, choice in own[0].items():
        if {point.get(axis) for point in own} == {choice} and all(point.get(axis) != choice for point in good):
            return [f"{axis}={choice}"]
    return []


def _test(result: Result) -> tuple[str, str]:
    cell = result.action.cell
    assert cell is not None
    return str(cell.matrix), cell.test


def _point(result: Result) -> Mapping[str, str]:
    cell = result.action.cell
    assert cell is not None
    return {"worker": cell.worker, **dict(cell.axes)}


def _rows(results: Sequence[Result]) -> list[str]:
    """Return the cells, those of one test and one combination in one line with their workers."""
    rows: dict[tuple[str, str], dict[str, None]] = {}
    for result in results:
        cell = result.action.cell
        assert cell is not None
        name = "/".join([cell.test, *(f"{axis}={choice}" for axis, choice in cell.axes)])
        run = f" (run {cell.run} of {cell.runs})" if cell.runs else ""
        rows.setdefault((str(cell.matrix), name), {})[cell.worker + run] = None
    several = len({matrix for matrix, _ in rows}) > 1
    lines = [
        f"{matrix + ' ' if several else ''}{name} on {', '.join(workers)}" for (matrix, name), workers in rows.items()
    ]
    more = len(lines) - _MOST_ROWS
    return [*lines[:_MOST_ROWS], *([f"and {more} more"] if more > 0 else [])]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."
