"""The files of a matrix: its tests, the files of the workspace that they need, and those that edit the daemons' configuration."""

from __future__ import annotations

import ast
import io
import os
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from bkrules.analysis import collection, provable
from bkrules.analysis.cell_rules import check_marks
from bkrules.analysis.context import Context
from bkrules.analysis.harmless import Unproven
from bkrules.analysis.literal_imports import path_entries
from bkrules.analysis.matrix import imported_files, imported_modules
from bkrules.analysis.module_syntax import parsed
from bkrules.analysis.provable import Imports
from bkrules.analysis.pytest_settings import DEFAULTS, Settings, settings_of
from bkrules.analysis.slices import Names, Slices, looks_around, looks_at_its_own, meaning
from bkrules.analysis.test_marks import Test, read_tests
from bkrules.analysis.test_programs import is_program
from bkrules.analysis.updaters import Updaters
from bkrules.errors import LoadError
from bkrules.incremental.dependencies import current
from bkrules.model.action import Action, Artifact, Source, Text, parameters
from bkrules.system.files import read_regular

DECLARED = ".bk-tests.json"
"""The file next to the tests with the names of all tests of a module, which a cell compares with those that pytest collects."""


@dataclass(frozen=True)
class Module:
    """A file of tests. `files` are the other files of the workspace that its tests need.

    `unproven` is why bk asked pytest for its tests; empty when they follow from the syntax.
    """

    path: str
    text: str
    tests: Sequence[Test]
    files: Sequence[str] = ()
    settings: Settings = DEFAULTS
    unproven: str = ""
    is_utf8: bool = True
    is_looked_at: bool = False
    """Whether a file that the tests need may inspect the text of the module."""

    def staged(self, test: Test) -> dict[str, Artifact]:
        """Return the inputs and parameters of a cell for its test and for the names of the module's other tests.

        When the tests of a module follow from its syntax, a cell sees only its own test, unless some code may inspect
        the module's text.
        """
        known = (test.callable, test.sets)
        if known not in self._staged:
            self._staged[known] = self._texts(test)
        return self._files | self._staged[known]

    @cached_property
    def _staged(self) -> dict[tuple[str, tuple[int, ...]], dict[str, Artifact]]:
        return {}

    @cached_property
    def _files(self) -> dict[str, Artifact]:
        return {f"src/{file}": Source(file) for file in self.files}

    def _texts(self, test: Test) -> dict[str, Artifact]:
        names, module = f"src/{DECLARED}", f"src/{self.path}"
        if self._is_whole(test):
            return {names: self._all_names, module: Source(self.path)}
        if self.unproven:
            return {names: self._all_names, module: self._all_text}
        place = (test.callable, test.sets)
        return {
            names: Text(self._names.meaning(*place), partial(self._names.text, *place)),
            module: Text(self._slices.meaning(*place), partial(self._slices.data, *place)),
        }

    def _is_whole(self, test: Test) -> bool:
        """Return whether a test's cell sees the file itself, of which each byte counts."""
        if self.is_looked_at or not self.is_utf8:
            return True
        return looks_at_its_own(self.text) if self.unproven else self._slices.is_whole(test.callable, test.sets)

    @cached_property
    def _slices(self) -> Slices:
        return Slices(self.text)

    @cached_property
    def _names(self) -> Names:
        return Names((test.callable, test.sets, test.in_pytest) for test in self.tests)

    @cached_property
    def _all_names(self) -> Text:
        return Text(parameters(sorted(filter(None, (test.in_pytest for test in self.tests)))).encode())

    @cached_property
    def _all_text(self) -> Text:
        return Text(meaning(self.text).encode(), self.text.encode())


class _Files:
    """The files of the workspace that the tests of a matrix may need, each read once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._bytes: dict[str, bytes | None] = {}
        self._texts: dict[str, tuple[str, bool]] = {}
        self._exists: dict[str, bool] = {}

    def data(self, path: str) -> bytes | None:
        """Return the bytes of a file, or None when it does not exist."""
        if path not in self._bytes:
            try:
                self._bytes[path] = read_regular(current().note(self.context.workspace.place(path)))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._bytes[path] = None
        return self._bytes[path]

    def exists(self, path: str) -> bool:
        """Return whether a file of the workspace exists that is not bk's own code."""
        if path not in self._exists:
            own = path.startswith("bkrules/")
            self._exists[path] = not own and os.path.isfile(current().note(self.context.workspace.place(path)))
        return self._exists[path]

    def text(self, path: str) -> str:
        """Return the source of a file. Raises LoadError when it is not Python."""
        return self._decoded(path)[0]

    def is_utf8(self, path: str) -> bool:
        """Return whether a source is UTF-8, so that parts of it can be written as UTF-8."""
        return self._decoded(path)[1]

    def _decoded(self, path: str) -> tuple[str, bool]:
        if path not in self._texts:
            data = self.data(path) or b""
            try:
                encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
                text = io.TextIOWrapper(io.BytesIO(data), encoding).read()
                parsed(text)
            except SyntaxError as error:
                raise _not_python(self.context, path, error) from error
            except (UnicodeError, LookupError) as error:
                raise _not_python(self.context, path, SyntaxError(str(error))) from error
            self._texts[path] = text, encoding in ("utf-8", "utf-8-sig")
        return self._texts[path]

    def tree(self, path: str) -> ast.Module:
        """Return the syntax of a file. Raises LoadError when it is not Python."""
        return parsed(self.text(path))


def read_modules(context: Context) -> list[Module]:
    """Return the files in the attribute `tests`. Raises LoadError for a file without tests, and for two tests of one name."""
    files = _Files(context)
    data = [context.source("data", label).path for label in context.attribute("data")]
    by_syntax = [
        _module(files, context.source("tests", label).path, data)
        for label in dict.fromkeys(context.attribute("tests"))
        if not is_program(context, label)
    ]
    asked = {module.path: _asked(context, module) for module in by_syntax if module.unproven}
    answers = dict(zip(asked, context.run(list(asked.values())), strict=True)) if asked else {}
    modules = [
        module if not module.unproven else _with(module, collection.tests_of(asked[module.path], answers[module.path]))
        for module in by_syntax
    ]
    seen: dict[str, str] = {}
    for module in modules:
        _check(context, module, seen)
    return modules


def _asked(context: Context, module: Module) -> Action:
    return collection.declare(context, module.path, module.files, module.settings)


def _with(module: Module, tests: Sequence[Test]) -> Module:
    return replace(module, tests=tests)


def _check(context: Context, module: Module, seen: dict[str, str]) -> None:
    """Check the tests of a module. Raises LoadError for invalid marks, for no test, and for two tests of one name."""
    try:
        for test in module.tests:
            check_marks(test)
    except LoadError as error:
        message = f"{context.label}: {module.path}: {error.message}"
        raise LoadError(error.reason, message, where=f"{module.path}:{error.where}", hint=error.hint) from error
    if not module.tests:
        raise context.error("empty-test", f"{module.path} has no test function", "tests", "name one test_something")
    for test in module.tests:
        place = f"{module.path}:{test.line}"
        if test.name in seen:
            message = f"{seen[test.name]} and {place} both have a test {test.name!r}"
            raise context.error("duplicate-name", message, "tests", "give one of them another name")
        seen[test.name] = place


def _module(files: _Files, path: str, data: Sequence[str]) -> Module:
    """Return a module with the tests that follow from its syntax, or with the reason why they do not."""
    text = files.text(path)
    settings = settings_of(path, files.data)
    conftests = [conftest for conftest in _conftests(files.context, path) if files.exists(conftest)]
    plugins = [name for name in settings.plugins if all(map(str.isidentifier, name.split(".")))]
    needed, roots = _closure(files, path, conftests, settings.paths, plugins)
    staged = tuple(sorted({*data, *needed} - {path}))
    tests: list[Test] = []
    unproven = ""
    try:
        if settings.change_collection:
            raise Unproven(1, "pytest's configuration changes what is a test")
        if not files.is_utf8(path):
            raise Unproven(1, "its encoding is not UTF-8")
        for conftest in conftests:
            provable.check(files.tree(conftest), _imports(files, conftest, roots), conftest=True)
        tests = read_tests(text, _imports(files, path, roots))
    except Unproven as error:
        unproven = f"line {error.line}: {error}"
    is_looked_at = any(looks_around(files.text(file)) for file in needed)
    return Module(path, text, tests, staged, settings, unproven, files.is_utf8(path), is_looked_at)


def _imports(files: _Files, path: str, roots: Sequence[str]) -> Imports:
    def modules(node: ast.ImportFrom) -> list[ast.Module]:
        return [files.tree(file) for file in imported_modules(node, "", path, roots, files.exists)]

    return Imports(modules, lambda node, name: bool(imported_modules(node, name, path, roots, files.exists)))


def read_updaters(context: Context) -> tuple[Updaters, list[str]]:
    """Return the functions in the attribute `updaters`, and these files with their imports. Raises LoadError."""
    files = _Files(context)
    paths = [context.source("updaters", label).path for label in context.attribute("updaters")]
    try:
        updaters = Updaters({path: files.text(path) for path in paths}, context.error, context.plugins)
    except SyntaxError as error:
        raise _not_python(context, str(error.filename), error) from error
    return updaters, sorted({file for path in paths for file in [path, *_closure(files, path, (), (), ())[0]]})


def _closure(
    files: _Files, start: str, conftests: Sequence[str], paths: Sequence[str], plugins: Sequence[str]
) -> tuple[set[str], list[str]]:
    """Return the files of the workspace that `start` and its conftests import, including these, and the folders of the search.

    pytest puts the folder of each of them, or that above their packages, on Python's path, and imports the packages
    around them.
    """
    begin = [start, *conftests]
    packages = [init for path in begin for init in _packages(files, path)]
    roots = dict.fromkeys([*(_package_root(files, path) for path in begin), *paths, os.path.dirname(start), ""])
    while True:
        imported: set[str] = set()
        waiting = [*begin, *packages]
        for name in plugins:
            waiting += imported_files(f"import {name}", start, list(roots), files.exists)
        before = len(roots)
        while waiting:
            path = waiting.pop()
            if path in imported:
                continue
            imported.add(path)
            own = [os.path.dirname(path), *roots]
            waiting += imported_files(files.text(path), path, own, files.exists)
            roots.update(dict.fromkeys(path_entries(files.text(path), path)))
        if len(roots) == before:
            return imported - {start}, list(roots)


def _packages(files: _Files, path: str) -> Iterator[str]:
    """Yield the `__init__.py` of the packages in which a file lies, from the innermost."""
    folder = os.path.dirname(path)
    while folder and files.exists(f"{folder}/__init__.py"):
        yield f"{folder}/__init__.py"
        folder = os.path.dirname(folder)


def _package_root(files: _Files, path: str) -> str:
    """Return the folder from which pytest imports a file: the first above its packages."""
    folder = os.path.dirname(path)
    for init in _packages(files, path):
        folder = os.path.dirname(os.path.dirname(init))
    return folder


def _conftests(context: Context, test: str) -> Iterable[str]:
    """Return the paths of conftest.py from a test's folder up to that of its bk package."""
    folder = os.path.dirname(test)
    while True:
        yield f"{folder}/conftest.py".lstrip("/")
        if not folder or context.workspace.package(folder) is not None:
            return
        folder = os.path.dirname(folder)


def _not_python(context: Context, path: str, error: SyntaxError) -> LoadError:
    return LoadError("syntax-error", f"{context.label}: {path}: {error.msg}", where=f"{path}:{error.lineno or 1}")
