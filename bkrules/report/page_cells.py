"""The cells of a page: the facts of report.json, and details from the files that bk keeps of each cell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from bkrules.execution import timeline
from bkrules.execution.layout import KEY, PREVIOUS, RESULT
from bkrules.model.action import Cell
from bkrules.model.label import Label
from bkrules.model.status import ABSENT, BAD
from bkrules.report.explain import difference
from bkrules.report.kept_keys import read_leaves
from bkrules.report.redaction import shown_leaf
from bkrules.system.files import read_regular

MOST_LOG = 256 << 10
"""The most bytes of one log in a page; of a longer one the end is there."""
MOST_DOCUMENT = 16 << 20
_PHASES = ("setup", "boot", "run", "teardown")
_MESSAGE = re.compile(r'time="[^"]*" level=info msg=("(?:[^"\\]|\\.)*")')
_ENDED = re.compile(r"exit status (-?\d+) after (\d+(?:\.\d+)?) s: (.*)", re.DOTALL)
_STARTED = re.compile(r"(\S+) started as process \d+: (.*)", re.DOTALL)
_READY = re.compile(r"(\S+) ready after (\d+(?:\.\d+)?) s")
_REQUEST = re.compile(r"([A-Z]+) (\S+) (\d+) (\d+)")
_WHOLE_LOGS = ("test.log", "attempt_*/test.log", "*.stacks")
"""Logs without times; all others are in the timeline."""
_LOGS = ("*.log", *_WHOLE_LOGS[1:])
_MIRROR = "mirror"
Document = dict[str, Any]


@dataclass
class Details:
    """The details of one cell: `lines` of the merged logs, the output of the test, spans of time, requests, and the key.

    A line is (milliseconds, log, text), a span (lane, text, from, to in milliseconds, how it ended), and a request
    (milliseconds, method, path, status, bytes).
    """

    lines: list[tuple[int, str, str]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    spans: list[tuple[str, str, int, int, str]] = field(default_factory=list)
    requests: list[tuple[int, str, str, int, int]] = field(default_factory=list)
    cases: list[Mapping[str, Any]] = field(default_factory=list)
    key: dict[str, str | None] = field(default_factory=dict)
    was: dict[str, str | None] = field(default_factory=dict)
    left_out: str = ""


def cell_of(report: Mapping[str, Any], label: Label) -> Cell:
    """Return the cell of an entry of report.json. Raises KeyError, TypeError and AttributeError for a malformed one."""
    run = report.get("run") or {"number": 0, "of": 0}
    axes = tuple((str(axis), str(choice)) for axis, choice in report["axes"].items())
    test = str(report["name"]).partition("/worker=")[0]
    return Cell(label, test, str(report["worker"]), axes, int(run["number"]), int(run["of"]))


def fact(report: Mapping[str, Any], cell: Cell, folder: Path, seconds: Callable[[str], float | None]) -> Document:
    """Return what the page knows of a cell before its details are opened. `seconds` are those of its last pass."""
    result = _document(folder / RESULT)
    phases = result.get("seconds")
    phases = phases if isinstance(phases, dict) else {}
    last = seconds(f"{cell.matrix} {cell.name}")
    if last == report.get("seconds"):
        last = None  # this very run, which need not have passed
    names = (
        "status",
        "cached",
        "cache",
        "seconds",
        "class",
        "reason",
        "egress",
        "isolation",
        "tainted",
        "unmet_faults",
    )
    return {
        "name": cell.name,
        "test": cell.test,
        "worker": cell.worker,
        "axes": dict(cell.axes),
        "run": [cell.run, cell.runs] if cell.runs else None,
        **{name: report.get(name) for name in names},
        "attempts": report.get("attempts") or [],
        "cases": len(report.get("cases") or ()),
        "phases": {name: phases[name] for name in _PHASES if _is_length(phases.get(name))},
        "pulled": _pulled(result),
        "last": last,
        "log": report.get("log"),
        **why(report, folder),
    }


def _pulled(result: Document) -> dict[str, list[int]]:
    """Return the requests and the bytes by repository, as the result of a cell has them."""
    pulled = result.get("pulled")
    if not isinstance(pulled, dict):
        return {}
    return {
        str(name): [int(count) for count in counts]
        for name, counts in pulled.items()
        if isinstance(counts, list) and len(counts) == 2 and all(isinstance(count, int) for count in counts)
    }


def why(report: Mapping[str, Any], folder: Path) -> Document:
    """Return why a cell ran, or why it did not, from its kept keys; with the first differing leaf when there is one."""
    if report.get("cached"):
        where = "the remote cache" if report.get("cache") == "remote" else "the disk cache"
        return {"why": f"did not run: its key is in {where}"}
    if report.get("status") in ABSENT and not report.get("attempts"):
        return {"why": f"did not run: {report.get('reason') or report.get('status')}"}
    now, before = read_leaves(folder / KEY), read_leaves(folder / PREVIOUS)
    if now is None:
        return {"why": "ran; its key is not kept here"}
    if before is None:
        return {"why": "ran: no earlier run is known"}
    found = difference(before, now)
    if found is None:
        return {"why": "ran: its key is that of its earlier run, whose result no cache had or was allowed to give"}
    old, new = shown_leaf(found.leaf, found.old), shown_leaf(found.leaf, found.new)
    return {"why": "ran: its key changed", "leaf": {"name": found.leaf, "old": old, "new": new, "more": found.more}}


def variables(folder: Path) -> dict[str, str]:
    """Return the leaves of a cell's keys, of this run and of the one before, for `redaction.secrets`."""
    return {**(read_leaves(folder / PREVIOUS) or {}), **(read_leaves(folder / KEY) or {})}


def details(report: Mapping[str, Any], folder: Path, hidden: Callable[[str], str]) -> Details:
    """Return the details of a cell. `hidden` hides secrets in a text."""
    made = Details(cases=list(report.get("cases") or ()))
    entries = timeline.entries(folder, MOST_LOG)
    made.lines = [(round(time * 1000), name, hidden(text)) for time, name, text in entries]
    made.spans = [*_phases(folder), *_spans(made.lines)]
    made.requests = list(_requests(made.lines))
    for path in (path for pattern in _WHOLE_LOGS for path in timeline.kept(folder, pattern)):
        made.logs[str(path.relative_to(folder))] = hidden(_end_of(path))
    now, before = read_leaves(folder / KEY) or {}, read_leaves(folder / PREVIOUS) or {}
    made.key = {name: _leaf(name, value, hidden) for name, value in now.items()}
    if not report.get("cached"):
        made.was = {name: _leaf(name, before[name], hidden) for name in before if before[name] != now.get(name)}
    return made


def size_of_logs(folder: Path) -> int:
    """Return the bytes that the logs of a cell take in a page, before they are compressed."""
    return sum(min(path.stat().st_size, MOST_LOG) for pattern in _LOGS for path in timeline.kept(folder, pattern))


def _leaf(name: str, value: str, hidden: Callable[[str], str]) -> str | None:
    shown = shown_leaf(name, value)
    return shown if shown is None else hidden(shown)


def _phases(folder: Path) -> Iterator[tuple[str, str, int, int, str]]:
    seconds = _document(folder / RESULT).get("seconds")
    seconds = seconds if isinstance(seconds, dict) else {}
    begin = 0.0
    for phase in _PHASES:
        length = seconds.get(phase)
        if _is_length(length):
            yield "cell", phase, round(begin * 1000), round((begin + length) * 1000), ""
            begin += length


def _is_length(seconds: object) -> TypeGuard[float]:
    return isinstance(seconds, int | float) and 0 <= seconds < 1e6


def _spans(lines: list[tuple[int, str, str]]) -> Iterator[tuple[str, str, int, int, str]]:
    """Yield the commands of a test and the starts of daemons, as the log of a cell has them."""
    running: dict[str, int] = {}
    booting: dict[str, tuple[int, str]] = {}
    for time, name, line in lines:
        match = _MESSAGE.match(line) if name == "cell" else None
        if match is None:
            continue
        text = _unquoted(match[1])
        if text.startswith("$ "):
            running[text[2:]] = time
        elif ended := _ENDED.fullmatch(text):
            running.pop(ended[3], None)
            begin = max(0, time - round(float(ended[2]) * 1000))
            yield "commands", ended[3], begin, time, "" if ended[1] == "0" else f"exit status {ended[1]}"
        elif started := _STARTED.fullmatch(text):
            booting[started[1]] = (time, started[2])
        elif (ready := _READY.fullmatch(text)) and ready[1] in booting:
            begin, command = booting.pop(ready[1])
            yield ready[1], f"start: {command}", begin, time, ""
    last = lines[-1][0] if lines else 0
    for command, begin in running.items():
        yield "commands", command, begin, last, "did not end"
    for daemon, (begin, command) in booting.items():
        yield daemon, f"start: {command}", begin, last, "was never ready"


def _requests(lines: list[tuple[int, str, str]]) -> Iterator[tuple[int, str, str, int, int]]:
    for time, name, line in lines:
        match = _MESSAGE.match(line) if name == _MIRROR else None
        request = _REQUEST.fullmatch(_unquoted(match[1])) if match else None
        if request is not None:
            yield time, request[1], request[2], int(request[3]), int(request[4])


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]


def _end_of(path: Path) -> str:
    """Return the end of a log, and how much is missing before that."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - MOST_LOG))
        text = file.read(MOST_LOG).decode(errors="replace")
    return text if size <= MOST_LOG else f"[{size - MOST_LOG} bytes before this are left out]\n{text}"


def _document(path: Path) -> Document:
    """Return the JSON object in a file; empty when there is none: a test can write to a cell's folder."""
    try:
        document = json.loads(read_regular(path, MOST_DOCUMENT))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def is_bad(report: Mapping[str, Any]) -> bool:
    """Return whether the cell of an entry of report.json has failed."""
    return report.get("status") in BAD
