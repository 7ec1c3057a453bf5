"""Cells as items of pytest: `test_hello.py::test_pull[3-gzip]` on the worker oci is `test_pull[3-gzip-oci]`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bkrules.analysis.test_marks import Test, functions_of
from bkrules.loading.glob import BUILD_FILE
from bkrules.model.action import Action, Cell
from bkrules.model.label import Label
from bkrules.model.parameters import TestCell, parameters_of


@dataclass(frozen=True)
class CallSpec:
    """The parameters of an item, as pytest keeps them: editors group such items by their function."""

    id: str
    params: Mapping[str, object] = field(default_factory=dict)
    indices: Mapping[str, int] = field(default_factory=dict)


class CellItem(pytest.Item):
    """A cell: one test at one point of a matrix. bk runs it."""

    cls: type | None = None
    """pytest asks an item with a `callspec` for its class, which is not imported."""

    def __init__(self, *, action: Action, original: str, identifier: str, line: int, **more: Any) -> None:
        super().__init__(**more)
        assert action.cell is not None
        self.action, self.cell = action, action.cell
        self.originalname, self.callspec, self._line = original, CallSpec(identifier), line
        self.extra_keyword_matches |= {self.cell.matrix.name, *(part for pair in self.cell.axes for part in pair)}

    def runtest(self) -> NoReturn:
        """Never called: bk runs cells."""
        raise AssertionError("bk runs this test in its cell")

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Return the place of the test function."""
        name = self.nodeid.partition("::")[2]
        is_program = parameters_of(self.action, TestCell).program is not None
        # pytest writes the dots of a name that ends a node id as `::`, and those of a program are no classes
        return self.path, self._line, f"{name} " if is_program else name.replace("::", ".")


class CellClass(pytest.Class):
    """A class with tests of a matrix. Its module is never imported on this machine."""

    children: Sequence[pytest.Item | pytest.Collector] = ()

    @property  # type: ignore[misc]  # pytest sets it when it imports a module
    def obj(self) -> NoReturn:
        """Not there."""
        raise AttributeError("a class of tests in cells is not imported")

    def collect(self) -> Sequence[pytest.Item | pytest.Collector]:
        """Return the cells of its tests."""
        return self.children


class CellModule(pytest.Module):
    """A file with tests of matrices, or a test itself. It is never imported on this machine.

    `line_of` returns the line of a matrix, for tests that are targets, whose file is the build file.
    """

    actions: Sequence[Action] = ()
    line_of: Callable[[Label], int]

    @property  # type: ignore[misc]  # pytest sets it when it imports a module
    def obj(self) -> NoReturn:
        """Not there."""
        raise AttributeError("a file of tests in cells is not imported")

    def collect(self) -> Sequence[pytest.Item | pytest.Collector]:
        """Return the cells of its tests, those of a class below that class."""
        known = _functions(self.path)
        first: dict[str, int] = {}
        cells = [(action, action.cell) for action in self.actions if action.cell is not None]
        cells.sort(key=lambda pair: first.setdefault(pair[1].test, len(first)))  # of several matrices, test by test
        names = _names([cell for _, cell in cells])
        top: list[pytest.Item | pytest.Collector] = []
        classes: dict[tuple[str, ...], tuple[CellClass, list[pytest.Item | pytest.Collector]]] = {}
        for (action, cell), identifier in zip(cells, names, strict=True):
            function, _, parameters = cell.test.partition("[")
            is_program = parameters_of(action, TestCell).program is not None
            *around, own = [function] if is_program else function.split("::")
            parent: pytest.Collector = self
            children = top
            for depth in range(1, len(around) + 1):
                path = tuple(around[:depth])
                if path not in classes:
                    made = CellClass.from_parent(parent, name=path[-1])
                    made.children = []
                    classes[path] = made, made.children
                    children.append(made)
                parent, children = classes[path]
            whole = "-".join(filter(None, [parameters.removesuffix("]"), identifier]))
            test = None if is_program else known.get(function)
            line = self.line_of(cell.matrix) if self.path.name == BUILD_FILE else test.line if test else 1
            item = CellItem.from_parent(
                parent,
                name=f"{own}[{whole}]",
                nodeid=f"{parent.nodeid}::{own}[{whole}]",  # of a text, pytest knows that the brackets are parameters
                action=action,
                original=own,
                identifier=whole,
                line=line - 1,
            )
            for mark in _marks(test):
                item.add_marker(mark)
            children.append(item)
        return top


def _functions(path: Path) -> Mapping[str, Test]:
    """Return the test functions of a file by their names; none when it cannot be read, which bk has reported."""
    try:
        return functions_of(path.read_text())
    except (OSError, ValueError, SyntaxError):
        return {}


def _marks(test: Test | None) -> Iterator[pytest.MarkDecorator]:
    """Yield the marks of a test, from the farthest, so that the nearest is the last that is added."""
    for mark in reversed(test.marks if test else ()):
        made: pytest.MarkDecorator = getattr(pytest.mark, mark.name)
        if mark.name != "parametrize":
            yield made.with_args(*(mark.arguments or ()), **(mark.keywords or {}))


def _names(cells: Sequence[Cell]) -> list[str]:
    """Return the points of cells in brackets: `oci-gzip`, with the matrix when there are several.

    When two cells of a test would have the same name, all have the names of axes too.
    """
    several = len({cell.matrix for cell in cells}) > 1
    labels = {cell.matrix for cell in cells}
    short = len({label.name for label in labels}) == len(labels)

    def name(cell: Cell, *, axes: bool) -> str:
        matrix = [cell.matrix.name if short else str(cell.matrix)] if several else []
        return "-".join([*matrix, cell.worker, *(f"{axis}={one}" if axes else one for axis, one in cell.axes)])

    plain = [name(cell, axes=False) for cell in cells]
    if len({(cell.test, one) for cell, one in zip(cells, plain, strict=True)}) == len(cells):
        return plain
    return [name(cell, axes=True) for cell in cells]
