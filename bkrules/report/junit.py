"""The results of a matrix as JUnit XML, as CI servers read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from bkrules.execution.result import Result
from bkrules.model.cases import CASES, MOST_CASES, Case, Cases
from bkrules.model.label import Label
from bkrules.model.status import ABSENT, BAD, Status
from bkrules.sandbox import outputs
from bkrules.system.files import read_text

# Characters that XML 1.0 cannot contain, escaped or not: control characters, lone surrogates, two noncharacters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(label: Label, results: Sequence[Result], folder: Path) -> str:
    """Return the results of a matrix as JUnit XML; `folder` is that of its outputs.

    Attempts before the last are elements of Surefire's rerunFailingTestsCount, which CI servers know.
    """
    suites = Element("testsuites")
    cases = [case for result in results for case in _cases(label, result, folder)]
    suite = SubElement(
        suites,
        "testsuite",
        name=_printable(str(label)),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
    )
    suite.extend(cases)
    ElementTree.indent(suites, "")
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _cases(label: Label, result: Result, folder: Path) -> Iterator[Element]:
    """Yield the element of a cell, and those of the cases that its program reported."""
    yield _case(label, result, folder)
    cell = result.action.cell
    assert cell is not None
    for case in reported(result, folder):
        name = _printable(f"{cell.name} {case.name}")
        element = Element("testcase", classname=_printable(str(label)), name=name, time=f"{case.seconds:.3f}")
        if case.status == Status.FAILED:
            SubElement(element, "failure", message=_printable(case.reason))
        elif case.status == Status.SKIPPED:
            SubElement(element, "skipped", message=_printable(case.reason))
        yield element


def reported(result: Result, folder: Path) -> tuple[Case, ...]:
    """Return the cases that the program of a cell reported; none for a test of pytest, or a cell that did not run."""
    cell = result.action.cell
    if cell is None or result.status == Status.NOT_RUN or CASES not in result.action.outputs:
        return ()
    return Cases.read(outputs.read(folder / cell.folder, CASES, MOST_CASES) or b"")


def _case(label: Label, result: Result, folder: Path) -> Element:
    cell = result.action.cell
    assert cell is not None
    case = Element(
        "testcase", classname=_printable(str(label)), name=_printable(cell.name), time=f"{result.seconds:.3f}"
    )
    properties = SubElement(case, "properties")
    axes = {"worker": cell.worker, **dict(cell.axes), "cached": str(result.cached).lower()}
    for name, value in axes.items():
        SubElement(properties, "property", name=_printable(name), value=_printable(value))
    message = _printable(result.reason)
    if result.status in BAD:
        SubElement(case, "failure", type=result.failure, message=message).text = _log(Path(result.log))
    elif result.status in ABSENT:
        SubElement(case, "skipped", message=message)
    case.extend(_attempts_before(result, folder / cell.folder))
    return case


def _attempts_before(result: Result, folder: Path) -> Iterator[Element]:
    """Yield the failures before the last attempt: of a cell that then passed, and of one that did not."""
    for attempt in result.ran.attempts[:-1] if result.ran else ():
        message = _printable(attempt.reason)
        kind = "flakyFailure" if result.status == Status.FLAKY else "rerunFailure"
        failure = Element(kind, type=attempt.failure, message=message)
        SubElement(failure, "stackTrace").text = message
        SubElement(failure, "system-out").text = _log(folder / attempt.log)
        yield failure


def _log(path: Path) -> str:
    return _printable(read_text(path)) if path.is_file() else ""


def _printable(text: str) -> str:
    return _NOT_XML.sub("", text)
