"""The results of a matrix as JUnit XML, as CI servers read it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from bkrules.execution.result import Result
from bkrules.model.label import Label
from bkrules.model.status import ABSENT, BAD, Status
from bkrules.system.files import read_text


def junit(label: Label, results: Sequence[Result], folder: Path) -> str:
    """Return the results of a matrix as JUnit XML; `folder` is that of its outputs.

    Attempts before the last are elements of Surefire's rerunFailingTestsCount, which CI servers know.
    """
    failures = sum(result.status in BAD for result in results)
    skipped = sum(result.status in ABSENT for result in results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites><testsuite name={_quoted(str(label))} tests="{len(results)}" failures="{failures}" skipped="{skipped}">',
    ]
    for result in results:
        cell = result.action.cell
        assert cell is not None
        lines.append(
            f'<testcase classname={_quoted(str(label))} name={_quoted(cell.name)} time="{result.seconds:.3f}">'
        )
        place = folder / cell.folder
        axes = {"worker": cell.worker, **dict(cell.axes), "cached": str(result.cached).lower()}
        properties = "".join(f"<property name={_quoted(name)} value={_quoted(value)}/>" for name, value in axes.items())
        lines.append(f"<properties>{properties}</properties>")
        if result.status in BAD:
            head = f"type={_quoted(result.failure)} message={_quoted(result.reason)}"
            lines.append(f"<failure {head}>{html.escape(_printable(_log(Path(result.log))))}</failure>")
        elif result.status in ABSENT:
            lines.append(f"<skipped message={_quoted(result.reason)}/>")
        lines += _attempts_before(result, place)
        lines.append("</testcase>")
    return "\n".join([*lines, "</testsuite></testsuites>", ""])


def _quoted(text: str) -> str:
    return f'"{html.escape(_printable(text))}"'


def _attempts_before(result: Result, folder: Path) -> list[str]:
    """Return the failures before the last attempt: of a cell that then passed, and of one that did not."""
    kind = "flakyFailure" if result.status == Status.FLAKY else "rerunFailure"
    return [
        f"<{kind} type={_quoted(one.failure)} message={_quoted(one.reason)}>"
        f"<stackTrace>{html.escape(_printable(one.reason))}</stackTrace>"
        f"<system-out>{html.escape(_printable(_log(folder / one.log)))}</system-out></{kind}>"
        for one in (result.ran.attempts[:-1] if result.ran else ())
    ]


def _log(path: Path) -> str:
    return read_text(path) if path.is_file() else ""


# Characters that XML 1.0 cannot contain, escaped or not: control characters, lone surrogates, two noncharacters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _printable(text: str) -> str:
    return _NOT_XML.sub("", text)
