"""The cases in the report of a program: JUnit XML, or what it printed: TAP, `go test -json`, or Go's `-test.v`.

Sources: the schema of JUnit as Surefire writes it, testanything.org version 14, and Go's cmd/test2json.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from bkrules.model.cases import Case
from bkrules.model.status import Status

_LONGEST = 2000
"""The limit of characters in the reason of a case."""
_RESULT = re.compile(r"(not )?ok\b[ \t]*\d*[ \t]*(?:- )?(.*?)(?:[ \t]+#[ \t]*(SKIP|TODO)\S*[ \t]*(.*))?", re.I)
_PLAN = re.compile(r"1\.\.(\d{1,9})(?:\s*#\s*skip\S*\s*(.*))?", re.I)
_OF_GO = re.compile(r"\s*--- (PASS|FAIL|SKIP): (\S+) \((\d+\.\d+)s\)")
_NOW = re.compile(r"=== (?:RUN|CONT|NAME) +(\S+)")
_SAID = re.compile(r"\s+\S+\.go:\d+: ?(.*)")
_MAY_COUNT = re.compile(r"\{|1\.\.|(not )?ok\b|Bail out!|=== |\s*--- |\s+(Error:|\S+\.go:\d+:)|\s{8}", re.I)
"""The beginnings of lines that can be part of a report."""
_MOST = 64 << 20
"""The limit in characters of a report among what a program prints."""
_WORDS = {"pass": Status.PASSED, "fail": Status.FAILED, "skip": Status.SKIPPED}


class BadReport(ValueError):
    """A report cannot be read, or contradicts itself."""


def cases_of(xml: Path, printed: Iterable[str]) -> tuple[Case, ...] | None:
    """Return the cases of a report, of the XML file if there is one, or else of the printed lines; None without a report.

    Raises BadReport.
    """
    if xml.exists():
        return tuple(_junit(xml))
    lines = list(_bounded(filter(_MAY_COUNT.match, printed)))
    if any(map(_PLAN.fullmatch, lines)):
        return tuple(_tap(lines))
    found = list(_json(lines)) or list(_verbose(lines))
    return tuple(_leaves(found)) if found else None


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    size = 0
    for line in lines:
        size += len(line)
        if size > _MOST:
            raise BadReport(f"it printed a report of more than {_MOST >> 20} MiB; write JUnit XML instead")
        yield line


def _junit(path: Path) -> Iterator[Case]:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise BadReport(f"its XML_OUTPUT_FILE is no XML: {error}") from error
    if root.tag not in ("testsuites", "testsuite"):
        raise BadReport(f"its XML_OUTPUT_FILE has the root element {root.tag!r}, not testsuites")
    for case in root.iter("testcase"):
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        seconds = _seconds(case.get("time", "0"))
        status, reason = Status.PASSED, ""
        for element in case:
            if element.tag in ("failure", "error"):
                status, reason = Status.FAILED, _said(element)
                break
            if element.tag == "skipped":
                status, reason = Status.SKIPPED, _said(element)
        yield Case(name, status, seconds, reason)


def _said(element: ElementTree.Element) -> str:
    return _short(element.get("message") or next(iter((element.text or "").strip().splitlines()), ""))


def _seconds(text: str) -> float:
    try:
        seconds = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def _tap(lines: Iterable[str]) -> Iterator[Case]:
    planned = 0
    number = 0
    for line in lines:
        if plan := _PLAN.fullmatch(line):
            planned = int(plan[1])
            if not planned and plan[2]:
                yield Case("all", Status.SKIPPED, reason=_short(plan[2]))
        elif line.startswith("Bail out!"):
            raise BadReport(f"it bailed out: {_short(line.removeprefix('Bail out!').strip())}")
        elif result := _RESULT.fullmatch(line):
            number += 1
            word = (result[3] or "").upper()
            status = Status.FAILED if result[1] and word != "TODO" else Status.PASSED
            yield Case(
                result[2] or str(number), Status.SKIPPED if word == "SKIP" else status, reason=_short(result[4] or "")
            )
    if number != planned:
        raise BadReport(f"it planned {planned} cases, but reported {number}")


def _json(lines: Iterable[str]) -> Iterator[Case]:
    said: dict[str, str] = {}
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        name, action = event.get("Test"), event.get("Action")
        if not isinstance(name, str):
            continue
        if action == "output" and (text := _SAID.fullmatch(str(event.get("Output", "")).rstrip("\n"))):
            said[name] = text[1]
        elif action in _WORDS:
            status = _WORDS[action]
            reason = "" if status == Status.PASSED else _short(said.get(name, ""))
            yield Case(name, status, _seconds(str(event.get("Elapsed", 0))), reason)


def _verbose(lines: Iterable[str]) -> Iterator[Case]:
    current = ""
    said: dict[str, str] = {}
    failed: dict[str, str] = {}
    opened = ""
    for line in lines:
        if opened:  # `Received unexpected error:`, and the error in the next line
            failed[opened] += f" {line.strip()}"
            opened = ""
        elif now := _NOW.fullmatch(line):
            current = now[1]
        elif result := _OF_GO.match(line):
            status = _WORDS[result[1].lower()]
            reason = "" if status == Status.PASSED else failed.get(result[2]) or said.get(result[2], "")
            yield Case(result[2], status, _seconds(result[3]), _short(reason))
        elif (text := _SAID.fullmatch(line)) and current:
            said[current] = text[1]
        elif line.strip().startswith("Error:") and current not in (
            "",
            *failed,
        ):  # of testify; logs of daemons may follow
            failed[current] = line.strip().removeprefix("Error:").strip()
            opened = current if failed[current].endswith(":") else ""


def _leaves(cases: list[Case]) -> Iterator[Case]:
    """Yield the cases without those that only hold others. One that failed although its inner cases passed is kept."""
    parents = {parent for case in cases for parent in _parents(case.name)}
    failed = {parent for case in cases if case.status == Status.FAILED for parent in _parents(case.name)}
    for case in cases:
        if case.name not in parents or (case.status == Status.FAILED and case.name not in failed):
            yield case


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _short(text: str) -> str:
    return text.strip()[:_LONGEST]
