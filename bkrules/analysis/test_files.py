"""The files of a matrix: its tests, what they need of the workspace, and those that edit the daemons' configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bkrules.analysis.cell_rules import required
from bkrules.analysis.context import Context
from bkrules.analysis.matrix import imported_files
from bkrules.analysis.test_marks import Test, read_tests
from bkrules.analysis.updaters import Updaters
from bkrules.errors import LoadError
from bkrules.observed import note


@dataclass(frozen=True)
class Module:
    """A file of tests."""

    path: str
    text: str
    tests: list[Test]


def read_modules(context: Context) -> list[Module]:
    """The files in the attribute `tests`. Raises LoadError for one without a test, and for two tests of one name."""
    found: list[Module] = []
    seen: dict[str, str] = {}
    for label in context.attribute("tests"):
        path = context.source("tests", label).path
        text = _read(context, path)
        try:
            own = read_tests(text)
            for test in own:
                required(test)
        except SyntaxError as error:
            raise _not_python(context, path, error) from error
        except LoadError as error:
            message = f"{context.label}: {path}: {error.message}"
            raise LoadError(error.reason, message, where=f"{path}:{error.where}", hint=error.hint) from error
        if not own:
            raise context.error("empty-test", f"{path} has no test function", "tests", "name one test_something")
        for test in own:
            place = f"{path}:{test.line}"
            if test.name in seen:
                message = f"{seen[test.name]} and {place} both have a test {test.name!r}"
                raise context.error("duplicate-name", message, "tests", "give one of them another name")
            seen[test.name] = place
        found.append(Module(path, text, own))
    return found


def read_updaters(context: Context) -> tuple[Updaters, list[str]]:
    """The functions in the attribute `updaters`, and these files with what they import. Raises LoadError."""
    paths = [context.source("updaters", label).path for label in context.attribute("updaters")]
    try:
        updaters = Updaters({path: _read(context, path) for path in paths}, context.error)
    except SyntaxError as error:
        raise _not_python(context, str(error.filename), error) from error
    return updaters, sorted({file for path in paths for file in [path, *closure(context, path, ())]})


def needed_files(context: Context, test: str) -> list[str]:
    """The files of the workspace that a test needs: conftests of its package, what it imports, and `data`; sorted."""
    data = [context.source("data", label).path for label in context.attribute("data")]
    own = (path for path in _conftests(context, test) if _exists(context, path))
    return sorted({*data, *closure(context, test, own)} - {test})


def closure(context: Context, start: str, more: Iterable[str]) -> set[str]:
    """The files of the workspace that the module `start`, and those in `more`, import, with these, and without `start`."""
    found: set[str] = set()
    waiting = [start, *more]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        roots = [os.path.dirname(path), os.path.dirname(start), ""]
        try:
            imported = list(imported_files(_read(context, path), path, roots, lambda file: _exists(context, file)))
        except SyntaxError as error:
            raise _not_python(context, path, error) from error
        waiting += [file for file in imported if not file.startswith("bkrules/")]
    return found - {start}


def _conftests(context: Context, test: str) -> Iterator[str]:
    """The places of conftest.py from a test's folder up to that of its package, which bounds what it may share."""
    folder = os.path.dirname(test)
    while True:
        yield f"{folder}/conftest.py".lstrip("/")
        if not folder or context.workspace.package(folder) is not None:
            return
        folder = os.path.dirname(folder)


def _exists(context: Context, path: str) -> bool:
    return os.path.isfile(note(f"{context.workspace.root}/{path}"))


def _read(context: Context, path: str) -> str:
    with open(note(f"{context.workspace.root}/{path}"), encoding="utf-8") as file:
        return file.read()


def _not_python(context: Context, path: str, error: SyntaxError) -> LoadError:
    return LoadError("syntax-error", f"{context.label}: {path}: {error.msg}", where=f"{path}:{error.lineno}")
