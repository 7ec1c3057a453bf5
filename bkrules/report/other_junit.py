"""The results of other tools as a page: files of JUnit XML, which are untrusted, and BuildKit's names in them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bkrules.errors import MachineLacks, UsageError
from bkrules.model.status import Status
from bkrules.report.page import Page
from bkrules.report.page_cells import MOST_LOG, Details, Document
from bkrules.report.redaction import without
from bkrules.system.files import open_regular

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MOST_FILE = 64 << 20
MOST_FILES = 10_000
MOST_CASES = 100_000
"""The limits of a page: bytes of a file, files, cases."""
_MOST_DEPTH = 100
_AXIS = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)
_SPLIT = re.compile(r"/(?=[A-Za-z][\w-]*=)")
_NO_NAME = "(no name)"
_AGAIN = ("flakyFailure", "flakyError", "rerunFailure", "rerunError")


def page_of_junit(folder: str) -> tuple[Page, list[Details]]:
    """Return the page of all JUnit files in a folder, or of one file. Raises UsageError for one that is none."""
    files = list(_files(folder))
    if not files:
        raise UsageError("no-junit", f"--junit: there is no .xml file in {folder}", hint="name a folder with JUnit XML")
    page = Page(f"{os.path.basename(os.path.abspath(folder))}", kind="junit")
    suites: dict[str, int] = {}
    made: list[Details] = []
    for path in files:
        for suite, cell, details in _read(path, os.path.relpath(path, folder) if path != folder else path):
            if suite not in suites:
                suites[suite] = len(suites)
                page.matrices.append({"label": suite, "exit_code": None, "remarks": []})
            page.cells.append({"matrix": suites[suite], **cell})
            made.append(details)
            if len(made) > MOST_CASES:
                message = f"--junit: {folder} has more than {MOST_CASES} cases"
                raise UsageError("no-junit", message, hint="name a part of it")
    return page, made


def _files(folder: str) -> Iterator[str]:
    """Yield the XML files, sorted. Raises UsageError."""
    if os.path.isfile(folder):
        yield folder
        return
    if not os.path.isdir(folder):
        raise UsageError("no-junit", f"--junit: there is nothing at {folder}", hint="name a folder with JUnit XML")
    found = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(".xml"):
                found += 1
                if found > MOST_FILES:
                    message = f"--junit: {folder} has more than {MOST_FILES} files"
                    raise UsageError("no-junit", message, hint="name a part of it")
                yield os.path.join(parent, name)


def _read(path: str, shown: str) -> Iterator[tuple[str, Document, Details]]:
    """Yield the suite, the facts and the details of each case of a file. Raises UsageError."""
    try:
        from defusedxml import ElementTree
        from defusedxml.common import DefusedXmlException
    except ImportError as error:
        hint = "install it with bk:  pip install 'bkrules[report]'"
        raise MachineLacks("no-defusedxml", "`bk report --junit` needs the package defusedxml", hint=hint) from error
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_FILE:
                raise ValueError(f"it has more than {MOST_FILE >> 20} MiB")
            # A document type can define entities that grow without limit, or name files; a report needs none.
            yield from _cases(ElementTree.iterparse(file, ("start", "end"), forbid_dtd=True), shown)
    except DefusedXmlException as error:
        hint = "a report needs no document type and no entities: make it without them"
        raise UsageError("no-junit", f"--junit: {path} is refused: {error}", hint=hint) from error
    except (OSError, ValueError, ElementTree.ParseError, LookupError) as error:
        hint = "name a folder in which each .xml file is a JUnit report"
        raise UsageError("no-junit", f"--junit: {path} cannot be read: {error}", hint=hint) from error


def _cases(events: Any, shown: str) -> Iterator[tuple[str, Document, Details]]:
    """Yield each case when it is complete, and drop its element: a file of many cases stays small in memory."""
    suites: list[str] = []
    depth = 0
    for event, element in events:
        tag = element.tag.rpartition("}")[2]
        if event == "start":
            depth += 1
            if depth == 1 and tag not in ("testsuites", "testsuite"):
                raise ValueError(f"it begins with <{tag[:40]}>, not with <testsuites>")
            if depth > _MOST_DEPTH:
                raise ValueError(f"its elements are deeper than {_MOST_DEPTH}")
            if tag == "testsuite":
                suites.append(element.get("name", ""))
            continue
        depth -= 1
        if tag == "testsuite":
            suites.pop()
            element.clear()
        elif tag == "testcase":
            suite = " / ".join(filter(None, suites)) or shown
            yield suite, *_case(element)
            element.clear()


def _case(element: Element) -> tuple[Document, Details]:
    """Return the facts and the details of a case."""
    children = {child.tag.rpartition("}")[2]: child for child in element}
    again = [child for child in element if child.tag.rpartition("}")[2] in _AGAIN]
    bad = children.get("failure", children.get("error"))
    status = Status.PASSED
    if bad is not None:
        status = Status.FAILED
    elif "skipped" in children:
        status = Status.SKIPPED
    elif again:
        status = Status.FLAKY
    why = bad if bad is not None else children.get("skipped", again[0] if again else None)
    hidden = without(())
    name = element.get("name") or _NO_NAME
    test, worker, axes = divided(name)
    seconds = _seconds(element.get("time"))
    where = element.get("classname", "")
    reason = hidden(_reason(why)) if why is not None else None
    kind = "" if bad is None else "infrastructure" if bad is children.get("error") else "test"
    attempts = [{"status": "failed", "seconds": None, "reason": hidden(_reason(child))} for child in again]
    last = {"status": status, "seconds": seconds, "reason": reason}
    logs = {
        "failure": _text(bad),
        "system-out": _text(children.get("system-out")),
        "system-err": _text(children.get("system-err")),
    }
    cell: Document = {
        **{"name": f"{where} {name}".strip() if where else name, "test": f"{where} {test}".strip() if where else test},
        **{"worker": worker, "axes": axes, "run": None, "status": status, "cached": False, "cache": None},
        **{"seconds": seconds, "class": kind or None, "reason": reason, "egress": [], "isolation": None},
        **{"tainted": [], "unmet_faults": False, "attempts": [*attempts, last] if attempts else [], "cases": 0},
        **{"phases": {}, "pulled": {}, "last": None, "log": None, "why": ""},
    }
    return cell, Details(logs={log: hidden(text) for log, text in logs.items() if text})


def divided(name: str) -> tuple[str, str, dict[str, str]]:
    """Return the test, the worker and the axes in a name as BuildKit's: `TestX/worker=oci/frontend=builtin`."""
    test, *parts = _SPLIT.split(name)
    axes = {}
    for part in parts:
        match = _AXIS.fullmatch(part)
        assert match is not None  # `_SPLIT` found its beginning
        axes[match[1]] = match[2]
    return test, axes.pop("worker", ""), axes


def _reason(element: Element) -> str:
    message = element.get("message") or (element.text or "").strip().partition("\n")[0] or element.get("type") or ""
    return message[:2000]


def _text(element: Element | None) -> str:
    return (element.text or "")[-MOST_LOG:] if element is not None else ""


def _seconds(text: str | None) -> float | None:
    """Return a time in seconds; None without one. Some tools write a comma between thousands."""
    try:
        seconds = float((text or "").replace(",", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
