"""The collection of a module by pytest: shared by the cells, which run one test of it, and by the action that lists them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from bkrules.model.parameters import PytestSettings
from bkrules.testing.pytest_text import ROOT

DECLARED = ".bk-tests.json"
"""The file below it with the declared names of all tests of a module."""
UNUSED = ("cacheprovider", "junitxml", "pastebin", "setuponly", "setupplan", "stepwise")
_DOCTEST = "doctest"
_NOT_IN_MODULE = re.compile(r"cannot import name '(\w+)'")


def arguments(settings: PytestSettings, *words: str) -> list[str]:
    """Return pytest's command line, with the settings of the workspace that decide which tests exist."""
    options = settings.options
    overrides = dict(settings.overrides)
    if settings.paths:
        overrides["pythonpath"] = shlex.join(f"{ROOT}/{path}" for path in settings.paths)
    wants_doctest = any(_DOCTEST in word for word in options)
    unused = UNUSED if wants_doctest else (*UNUSED, _DOCTEST)
    return [
        *(word for name in unused for word in ("-p", f"no:{name}")),
        *("-c", "/dev/null", f"--rootdir={ROOT}", f"--confcutdir={ROOT}", "--color=no"),
        *(word for name, value in overrides.items() for word in ("-o", f"{name}={value}")),
        *options,
        *words,
    ]


def name_of(item: pytest.Item, module: str) -> str:
    """Return the part of an item's node id after the file; the whole for an item of another file."""
    return item.nodeid.removeprefix(f"{module}::")


class Faults:
    """A pytest plugin that keeps the errors of imports and collection.

    `reports` are the texts of pytest, `skipped` the reason why the whole module is skipped. `missing` are the names of
    modules and files that were not found, by the errors of any part of a run.
    """

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.skipped = ""
        self.missing: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(self) -> Generator[None]:
        """Keep the error of a conftest.py, which pytest does not report to plugins otherwise."""
        try:
            return (yield)
        except BaseException as error:
            self._look_at(error)
            raise

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep the reports of modules and classes that could not be collected."""
        if report.failed:
            self.reports.append(str(report.longrepr).strip())
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.skipped = str(report.longrepr[2]).removeprefix("Skipped: ")

    def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
        """Keep the missing names in an error."""
        if call.excinfo is not None:
            self._look_at(call.excinfo.value)

    def _look_at(self, error: BaseException | None) -> None:
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            if isinstance(error, ImportError) and error.name:
                if isinstance(error, ModuleNotFoundError):
                    self.missing.append(error.name)
                elif found := _NOT_IN_MODULE.match(error.msg):  # the module exists, and the name may be a submodule
                    self.missing.append(f"{error.name}.{found[1]}")
            elif isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
                self.missing.append(error.filename)
            error = error.__cause__ or getattr(error, "cause", None) or error.__context__


def difference(collected: Sequence[str], declared: Sequence[str]) -> str:
    """Return how two lists of tests differ, in one line; empty when they do not."""
    more, fewer = (sorted(set(one) - set(other)) for one, other in ((collected, declared), (declared, collected)))
    parts = [
        f"{what}: {', '.join(names)}" for what, names in (("only in the cell", more), ("only declared", fewer)) if names
    ]
    return "; ".join(parts)
