"""Ask pytest for the tests of a module, in the sandbox of an action: `python -m bkrules.testing.collect SETTINGS OUTPUT`."""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bkrules.model.collected import Collected, CollectedTest, CollectionFault
from bkrules.model.parameters import CollectTests
from bkrules.testing import pytest_plugin
from bkrules.testing.collection import Faults, arguments, name_of
from bkrules.testing.pytest_text import PATIENCE, ROOT, last_line, place_in

_FINE = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


class _Items:
    """A pytest plugin that keeps the items that are left after all hooks.

    `refused` are pytest's warnings about classes of the module itself that it does not collect, whose tests would be lost.
    """

    def __init__(self, module: str) -> None:
        self.found: list[pytest.Item] = []
        self.refused: list[str] = []
        self._module = module

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Keep a warning about a class with tests. One without, and that of another module, is a helper such as `TestClient`."""
        path, text = os.path.relpath(warning_message.filename, ROOT), str(warning_message.message)
        if path == self._module and issubclass(warning_message.category, pytest.PytestCollectionWarning):
            classes = (node for node in ast.walk(ast.parse(Path(path).read_bytes())) if isinstance(node, ast.ClassDef))
            if any(f"'{node.name}'" in text and _has_tests(node) for node in classes):
                self.refused.append(f"{path}:{warning_message.lineno}: \n{text}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the items."""
        self.found = list(session.items)


def _has_tests(node: ast.ClassDef) -> bool:
    functions = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(one.name.startswith("test") for one in functions)


def main(settings: CollectTests, output: str) -> int:
    """Write the tests of the module in `settings` to the file `output`, or why pytest cannot tell."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    sys.path.insert(0, ROOT)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    items, faults = _Items(settings.module), Faults()
    words = arguments(settings, "--collect-only", "-q", settings.module)
    code = pytest.main(words, plugins=[pytest_plugin, faults, items])
    answer = Collected(
        tests=tuple(_test(item, settings.module) for item in items.found),
        skipped=faults.skipped,
        missing=tuple(faults.missing),
        errors=tuple(CollectionFault(place_in(text), last_line(text)) for text in [*faults.reports, *items.refused]),
        code=int(code),
    )
    Path(output).write_text(json.dumps(answer.to()))
    return 0 if code in _FINE and not answer.errors else 1


def _test(item: pytest.Item, module: str) -> CollectedTest:
    name = name_of(item, module)
    callspec = getattr(item, "callspec", None)
    line = item.location[1]
    function = name.removesuffix(f"[{callspec.id}]") if callspec is not None else name
    marks = ((mark.name, _literal(list(mark.args)), _literal(dict(mark.kwargs))) for mark in item.iter_markers())
    return CollectedTest(name, function, (line or 0) + 1, tuple(marks))


def _literal(value: Sequence[object] | Mapping[str, object]) -> str | None:
    """Return the arguments of a mark as a literal, or None when they are not literals."""
    with contextlib.suppress(Exception):  # an error of a __repr__ in the workspace
        text = repr(value)
        if ast.literal_eval(text) == value:
            return text
    return None


if __name__ == "__main__":
    sys.exit(main(CollectTests.parse(json.loads(sys.argv[1])), sys.argv[2]))
