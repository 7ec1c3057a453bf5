"""`bk test --update_expectations`: what builds make becomes what is expected of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bkrules.build.analysis import Analysis
from bkrules.cache import atomic
from bkrules.commands.parser import nothing
from bkrules.declarative import expectations
from bkrules.declarative.seen import FILE, MOST, RECORDS, Seen, read_seen
from bkrules.declarative.updated import NothingToRecord, updated
from bkrules.errors import SUCCESS, BkError, LoadError
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.system.files import read_regular

_RULE = "build_test"
_HINT = "a build_agreement shows all differences; leave out what differs, or give these workers a separate build_test"


def recording(targets: Sequence[Target]) -> list[Target]:
    """Return the build_tests that have a file, in the form that records what they see. Raises BkError when there are none."""
    tests = [target for target in targets if target.rule.name == _RULE]
    found = [target for target in tests if isinstance(target.attributes["expect"], Label)]
    if not found and tests:
        what = f"{tests[0].label}: 'expect' is a dictionary, but --update_expectations writes JSON files only"
        hint = f"write it to a file, and name the file here: expect = {tests[0].label.name + '.json'!r}"
        raise LoadError("no-file", what, where=tests[0].location.of("expect"), hint=hint)
    if not found:
        raise nothing("--update_expectations: there is no build_test among the targets", "see `bk query //...`")
    return [_recorded(target, target.attributes["expect"]) for target in found]


def _recorded(target: Target, file: Label) -> Target:
    """Return the target with its file as the one to write, which need not exist."""
    return replace(target, attributes={**target.attributes, "expect": {}}, extra={**target.extra, RECORDS: file})


def write_expectations(analysis: Analysis) -> int:
    """Write the files of all build_tests of a build that passed. Return the exit code. Raises BkError when cells disagree."""
    found: dict[str, tuple[Target, dict[str, Any]]] = {}
    root = Path(analysis.workspace.root)
    for target in analysis.targets.targets:
        if RECORDS in target.extra:
            name = target.extra[RECORDS].path
            document = _updated(target, _expectations(root / name), dict(_seen(analysis, target)))
            other, before = found.setdefault(name, (target, document))
            if before != document:
                raise _error(target, f"it and {other.label} need different values in {name}")
    for name, (target, document) in found.items():
        data = (json.dumps(document, indent=4, ensure_ascii=False) + "\n").encode()
        is_new = not (root / name).is_file() or read_regular(root / name) != data
        if is_new:
            atomic.write(str(root / name), data)
        print(f"{target.label}: {'wrote' if is_new else 'no change in'} {name}")
    return SUCCESS


def _expectations(path: Path) -> dict[str, Any]:
    """Return the expectations of a file that the analysis has checked; it may be missing."""
    return expectations.parse(json.loads(read_regular(path)), records=True) if path.is_file() else {}


def _seen(analysis: Analysis, target: Target) -> Iterator[tuple[str, Seen]]:
    """Yield what each cell of a target saw, with the cell's name. Raises BkError for what bk cannot read."""
    folder = analysis.out / target.label.package / target.label.name
    for action in analysis.wanted().values():
        cell = action.cell
        if action.label == target.label and cell is not None and not cell.skip:
            try:
                with open(folder / cell.folder / FILE, "rb") as file:
                    yield cell.name, read_seen(file.read(MOST))
            except (OSError, ValueError) as error:
                raise _error(target, f"cannot read what {cell.name} saw: {error}") from error


def _updated(target: Target, expect: Mapping[str, Any], cells: Mapping[str, Seen]) -> dict[str, Any]:
    """Return the expectations that hold in all cells. Raises BkError when there are none."""
    found: dict[str, dict[str, Any]] = {}
    for name, seen in cells.items():
        try:
            found[name] = updated(expect, seen)
        except NothingToRecord as error:
            raise _error(target, f"{name}: {error}") from error
    if not found:
        raise _error(target, "none of its cells ran")
    (first, document), *others = found.items()
    for name, other in others:
        for section, value in document.items():
            if other[section] != value:
                mine, its = _differing(value, other[section]), _differing(other[section], value)
                raise _error(target, f"no file was written: {section!r} is {mine} in {first} and {its} in {name}")
    return document


def _differing(value: object, other: object) -> object:
    """Return a value, or the part of it in which it differs from another one."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {name: one for name, one in value.items() if other.get(name, ()) != one}
    return value


def _error(target: Target, message: str) -> BkError:
    return BkError("not-recorded", f"{target.label}: {message}", where=target.location.of("expect"), hint=_HINT)
