"""The tests of a module and their marks, read from its syntax: what a cell is must be known before anything runs.

A test is what pytest would collect: functions `test*`, and those in classes `Test*`. A parametrized test whose parameter sets are
literals is one test for each set, `test_x[a]`; any other is one test, whose sets run together.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bkrules.errors import LoadError

_ID = re.compile(r"[A-Za-z0-9_.+,=@~-]+").fullmatch
_HARMLESS = {"object", "Generic", "Protocol"}


@dataclass(frozen=True)
class Mark:
    """`@pytest.mark.NAME(...)`. `arguments` and `keywords` are None when one of them is not a literal."""

    name: str
    line: int
    arguments: tuple[Any, ...] | None = ()
    keywords: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Test:
    """A test of a module: its name as pytest has it, `test_x`, `TestX::test_y` or `test_x[a]`, its line and its marks.

    `marks` begin with the nearest: those of a parameter set, of the function, of its classes, of the module. `sets` holds the
    number of its set in each `parametrize`, in the order of the marks. `callable` is the name without the parameters.
    """

    name: str
    line: int
    marks: tuple[Mark, ...] = ()
    sets: tuple[int, ...] = ()
    callable: str = ""

    def mark(self, name: str) -> Mark | None:
        """The nearest mark of that name, or none."""
        return next((mark for mark in self.marks if mark.name == name), None)


TestNode = tuple[str, ast.FunctionDef, tuple[ast.ClassDef, ...]]


def nodes(module: ast.Module) -> list[TestNode]:
    """The test functions of a module in its order: name, node, and the classes around it from the innermost.

    Raises LoadError for a class whose tests cannot be seen, since a base of it is elsewhere.
    """
    return list(_in(module.body, (), {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}))


def _in(
    body: Iterable[ast.stmt], around: tuple[ast.ClassDef, ...], known: Mapping[str, ast.ClassDef]
) -> Iterator[TestNode]:
    prefix = "".join(f"{one.name}::" for one in reversed(around))
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield prefix + node.name, node, around
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _in(_members(node, known), (node, *around), known)


def _members(node: ast.ClassDef, known: Mapping[str, ast.ClassDef]) -> list[ast.stmt]:
    """The statements of a class, and those that it inherits and does not have itself."""
    members = list(node.body)
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        word = name.id if isinstance(name, ast.Name) else name.attr if isinstance(name, ast.Attribute) else ""
        if isinstance(base, ast.Name) and word in known and known[word] is not node:
            own = {getattr(one, "name", None) for one in members}
            inherited = _members(known[word], known)
            members += [one for one in inherited if isinstance(one, ast.FunctionDef) and one.name not in own]
        elif word not in _HARMLESS:
            raise LoadError(
                "unseen-tests",
                f"the class {node.name} inherits from {ast.unparse(base)}, whose tests are not to be seen in this file",
                where=str(node.lineno),
                hint="put the base into the same file, or what it has into fixtures",
            )
    return members


def read_tests(source: str) -> list[Test]:
    """The tests of a module's source, in its order. Raises SyntaxError, and LoadError with a line as its place."""
    module = ast.parse(source)
    common = [mark for node in module.body for mark in _pytestmark(node)]
    found: list[Test] = []
    for name, node, around in nodes(module):
        marks = [*_marks(node, around), *common]
        own = Test(name, node.lineno, tuple(_mark(mark) for mark in marks), callable=name)
        found += _parametrized(own, [mark for mark in marks if _name(mark) == "parametrize"])
    return found


def only_sets(source: str, name: str, sets: Sequence[int]) -> str:
    """The module in which the test `name` has of each `parametrize` only the set of that number, its lines kept in place."""
    module = ast.parse(source)
    common = [mark for node in module.body for mark in _pytestmark(node)]
    [marks] = [[*_marks(node, around), *common] for found, node, around in nodes(module) if found == name]
    calls = [mark for mark in marks if isinstance(mark, ast.Call) and _name(mark) == "parametrize"]
    given = [(_given(call), number) for call, number in zip(calls, sets, strict=True)]
    lists = [(one[key], number) for one, number in given for key in ("argvalues", "ids") if key in one]
    data = source.encode()
    starts = [0, *(line.end() for line in re.finditer(rb"[^\r\n]*(?:\r\n|\r|\n)", data))]
    edits = []
    for node, number in lists:
        if isinstance(node, ast.List | ast.Tuple):
            places = [_span(one, starts) for one in (node, node.elts[number])]
            edits.append((*places[0], *places[1]))
    for start, end, first, last in sorted(edits, reverse=True):
        before, after = (b"\n" * len(re.findall(rb"\r\n|\r|\n", data[a:b])) for a, b in ((start, first), (last, end)))
        data = b"".join([data[:start], b"[", before, data[first:last], after, b"]", data[end:]])
    return data.decode()


def _span(node: ast.expr, starts: Sequence[int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


def _marks(node: ast.FunctionDef, around: Iterable[ast.ClassDef]) -> list[ast.expr]:
    """The marks of a function and of the classes around it, from the nearest."""
    own = [mark for one in around for mark in [*_decorators(one), *(mark for s in one.body for mark in _pytestmark(s))]]
    return [*_decorators(node), *own]


def _decorators(node: ast.FunctionDef | ast.ClassDef) -> list[ast.expr]:
    """The marks among the decorators, from the one nearest to the name, which is the order in which pytest takes them."""
    return [one for one in reversed(node.decorator_list) if _name(one)]


def _pytestmark(node: ast.stmt) -> list[ast.expr]:
    """The marks that `pytestmark = ...` gives to all tests of a module or class."""
    if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != "pytestmark":
        return []
    values = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
    return [value for value in values if _name(value)]


def _name(node: ast.expr) -> str:
    """The name of a mark, `pytest.mark.NAME` or `mark.NAME`, called or not; nothing for anything else."""
    function = node.func if isinstance(node, ast.Call) else node
    start, _, name = ast.unparse(function).rpartition(".")
    return name if start in ("pytest.mark", "mark") else ""


def _mark(node: ast.expr) -> Mark:
    if not isinstance(node, ast.Call):
        return Mark(_name(node), node.lineno, (), {})
    try:
        arguments = tuple(ast.literal_eval(one) for one in node.args)
        keywords = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
    except (ValueError, TypeError):
        return Mark(_name(node), node.lineno, None, None)
    return Mark(_name(node), node.lineno, arguments, keywords)


@dataclass(frozen=True)
class _Set:
    """One parameter set: its id, its number, its own marks."""

    id: str
    index: int
    marks: tuple[Mark, ...]


def _parametrized(test: Test, marks: Sequence[ast.expr]) -> list[Test]:
    """The test for each combination of its parameter sets; the test itself when one of them is not to be seen."""
    axes = [_sets(mark) for mark in marks if isinstance(mark, ast.Call)]
    if not axes or len(axes) < len(marks) or not all(axes):
        return [test]
    found = []
    for point in itertools.product(*filter(None, axes)):
        own = tuple(mark for one in point for mark in one.marks)
        name = f"{test.name}[{'-'.join(one.id for one in point)}]"
        found.append(replace(test, name=name, marks=(*own, *test.marks), sets=tuple(one.index for one in point)))
    return found if len({one.name for one in found}) == len(found) else [test]


def _given(call: ast.Call) -> dict[str, ast.expr]:
    """The arguments of a `parametrize` by their names."""
    given = dict(zip(("argnames", "argvalues", "indirect", "ids"), call.args, strict=False))
    return given | {one.arg: one.value for one in call.keywords if one.arg}


def _sets(call: ast.Call) -> list[_Set]:
    """The sets of a `parametrize`; none when they are not literals, or an id would not do as the name of a folder."""
    given = _given(call)
    values = given.get("argvalues")
    if "argnames" not in given or not isinstance(values, ast.List | ast.Tuple):
        return []
    try:
        names = ast.literal_eval(given["argnames"])
        ids = ast.literal_eval(given["ids"]) if "ids" in given else None
        names = [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else list(names)
        known = list(ids or [None] * len(values.elts))
        sets = [_set(value, index, names, known[index]) for index, value in enumerate(values.elts)]
    except (ValueError, TypeError, IndexError):
        return []
    distinct = len({one.id for one in sets}) == len(sets)
    return sets if distinct and all(_ID(one.id) for one in sets) else []


def _set(node: ast.expr, index: int, names: Sequence[str], given: object) -> _Set:
    """Raises ValueError for what is no literal."""
    marks: list[ast.expr] = []
    values = node.elts if isinstance(node, ast.List | ast.Tuple) and len(names) > 1 else [node]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.param", "param"):
        values = node.args
        words = {one.arg: one.value for one in node.keywords}
        if "id" in words:
            given = ast.literal_eval(words["id"]) or given
        own = words.get("marks", ast.Tuple([], ast.Load()))
        marks = own.elts if isinstance(own, ast.List | ast.Tuple) else [own]
    if given is None:
        parts = [_id(ast.literal_eval(value), name, index) for value, name in zip(values, names, strict=True)]
        given = "-".join(parts)
    return _Set(str(given), index, tuple(_mark(mark) for mark in marks if _name(mark)))


def _id(value: object, name: str, index: int) -> str:
    """The part of an id that pytest makes of a value."""
    return str(value) if value is None or isinstance(value, str | int | float | complex) else f"{name}{index}"
