"""The tests of a module and their marks, read from its syntax, since bk must know its cells before anything runs.

A test is what pytest would collect: functions `test*`, and those in classes `Test*`; a parametrized one is a test for
each of its parameter sets, `test_x[a]`. Where syntax does not prove that the list is complete (`provable.py`), bk asks
pytest (`collection.py`).
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bkrules.analysis.harmless import Unproven
from bkrules.analysis.module_syntax import Function, is_test, is_test_class, mark_name, parsed, pytestmark
from bkrules.analysis.provable import NOWHERE, Imports, check

_LONGEST_VALUE = 100
"""The longest text that pytest makes an id of."""


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

    `marks` begin with the nearest: those of a parameter set, of the function, of its classes, of the module. `sets` has
    the number of the test's set in each `parametrize` of the function itself, in the order of the marks; other tests
    share those of a class or module. `sets` is only known by syntax. `callable` is the name without the parameters.
    `item` is pytest's name when it is not printable, or when the whole module is skipped and has no items.
    """

    name: str
    line: int
    marks: tuple[Mark, ...] = ()
    sets: tuple[int, ...] = ()
    callable: str = ""
    item: str | None = None

    @property
    def in_pytest(self) -> str:
        """The part of pytest's node id after the file."""
        return self.name if self.item is None else self.item

    def mark(self, name: str) -> Mark | None:
        """Return the nearest mark of that name, or None."""
        return next((mark for mark in self.marks if mark.name == name), None)


TestNode = tuple[str, Function, tuple[ast.ClassDef, ...]]


def nodes(module: ast.Module) -> list[TestNode]:
    """Return the test functions of a module in order: name, node, and the enclosing classes from the innermost."""
    return list(_in(module.body, ()))


def _in(body: Iterable[ast.stmt], around: tuple[ast.ClassDef, ...]) -> Iterator[TestNode]:
    prefix = "".join(f"{enclosing.name}::" for enclosing in reversed(around))
    for node in body:
        if isinstance(node, Function) and is_test(node.name):
            yield prefix + node.name, node, around
        elif isinstance(node, ast.ClassDef) and is_test_class(node.name):
            yield from _in(node.body, (node, *around))


def read_tests(source: str, imports: Imports = NOWHERE) -> list[Test]:
    """Return the tests of a module's source, in order.

    Raises SyntaxError, and Unproven when syntax does not prove that these are all tests, with the names that pytest
    gives them.
    """
    module = parsed(source)
    check(module, imports)
    common = [mark for node in module.body for mark in pytestmark(node)]
    tests: list[Test] = []
    for name, node, around in nodes(module):
        marks = [*_marks(node, around), *common]
        own = Test(name, node.lineno, tuple(_mark(mark) for mark in marks), callable=name)
        own_sets = len(_parametrizes(_decorators(node)))
        tests += [replace(test, sets=test.sets[:own_sets]) for test in _parametrized(own, _parametrizes(marks))]
    return tests


def functions_of(source: str) -> dict[str, Test]:
    """Return the test functions of a module's source by their names, whatever their parameters. Raises SyntaxError."""
    module = parsed(source)
    common = [mark for node in module.body for mark in pytestmark(node)]
    return {
        name: Test(name, node.lineno, tuple(_mark(mark) for mark in [*_marks(node, around), *common]), callable=name)
        for name, node, around in nodes(module)
    }


class Parametrize:
    """A `parametrize` of a test function, whose sets are literals. Raises ValueError, TypeError or IndexError for another one."""

    def __init__(self, node: ast.Call) -> None:
        self.node = node
        self._sets = _sets(node)
        arguments = _arguments(node)
        written = [(name, arguments.get(name)) for name in ("argvalues", "ids")]
        self._lists = {name: one for name, one in written if isinstance(one, ast.List | ast.Tuple) and one.elts}

    @property
    def lists(self) -> list[ast.List | ast.Tuple]:
        """The lists with an element for each set."""
        return list(self._lists.values())

    def parts(self, number: int) -> list[tuple[ast.expr, tuple[str, str]]]:
        """Return the elements of one set, each with the texts around it that keep the id which the set has among the others."""
        pin = self._sets[number].pin
        return [(one.elts[number], pin if name == "argvalues" else ("", "")) for name, one in self._lists.items()]

    def without_sets(self) -> ast.Call:
        """Return the call with empty lists."""
        lists = set(map(id, self.lists))

        def emptied(value: ast.expr) -> ast.expr:
            return ast.List([], ast.Load()) if id(value) in lists else value

        keywords = [ast.keyword(one.arg, emptied(one.value)) for one in self.node.keywords]
        return ast.Call(self.node.func, list(map(emptied, self.node.args)), keywords)


def parametrizes_of(node: Function) -> list[Parametrize]:
    """Return the `parametrize` marks of a function, in the order of `Test.sets`."""
    return [Parametrize(call) for call in _parametrizes(_decorators(node)) if isinstance(call, ast.Call)]


def _marks(node: Function, around: Iterable[ast.ClassDef]) -> list[ast.expr]:
    """Return the marks of a function and of its enclosing classes, from the nearest, in the order in which pytest takes them."""
    return [*_decorators(node), *(mark for definition in around for mark in _class_marks(definition))]


@functools.lru_cache(maxsize=256)
def _class_marks(node: ast.ClassDef) -> list[ast.expr]:
    return [*(mark for statement in node.body for mark in pytestmark(statement)), *_decorators(node)]


def _decorators(node: Function | ast.ClassDef) -> list[ast.expr]:
    """Return the marks among the decorators, from the one nearest to the name, as pytest does."""
    return [decorator for decorator in reversed(node.decorator_list) if mark_name(decorator)]


def _parametrizes(marks: Iterable[ast.expr]) -> list[ast.expr]:
    return [mark for mark in marks if mark_name(mark) == "parametrize"]


def _mark(node: ast.expr) -> Mark:
    if not isinstance(node, ast.Call):
        return Mark(mark_name(node), node.lineno, (), {})
    try:
        arguments = tuple(ast.literal_eval(argument) for argument in node.args)
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (ValueError, TypeError, RecursionError):
        return Mark(mark_name(node), node.lineno, None, None)
    return Mark(mark_name(node), node.lineno, arguments, keywords)


@dataclass(frozen=True)
class _Set:
    """A parameter set: its id, its number, its own marks, and the fields that keep the id when the other sets are removed."""

    id: str
    index: int
    marks: tuple[Mark, ...]
    pin: tuple[str, str] = ("", "")


def _parametrized(test: Test, marks: Sequence[ast.expr]) -> list[Test]:
    """Return a test for each combination of its parameter sets. Raises Unproven for sets whose ids only pytest can tell."""
    if not marks:
        return [test]
    axes = []
    for mark in marks:
        try:
            if not isinstance(mark, ast.Call):
                raise ValueError("it has no arguments")
            axes.append(_sets(mark))
        except (ValueError, TypeError, IndexError, RecursionError) as error:
            raise Unproven(mark.lineno, f"parameter sets of {test.name} that are no literals") from error
    tests = []
    for point in itertools.product(*axes):
        own = tuple(mark for parameters in point for mark in parameters.marks)
        name = f"{test.name}[{'-'.join(parameters.id for parameters in point)}]"
        tests.append(
            replace(test, name=name, marks=(*own, *test.marks), sets=tuple(parameters.index for parameters in point))
        )
    if len({test.name for test in tests}) < len(tests):
        raise Unproven(test.line, f"two tests are called {test.name} with the same parameters")
    return tests


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    """Return the arguments of a `parametrize` by their names. Raises ValueError for starred ones."""
    if any(isinstance(argument, ast.Starred) for argument in call.args) or not all(
        argument.arg for argument in call.keywords
    ):
        raise ValueError("its arguments are starred")
    arguments = dict(zip(("argnames", "argvalues", "indirect", "ids", "scope"), call.args, strict=False))
    return arguments | {str(keyword.arg): keyword.value for keyword in call.keywords}


def _sets(call: ast.Call) -> list[_Set]:
    """Return the sets of a `parametrize`. Raises ValueError, TypeError or IndexError when only pytest can tell them."""
    arguments = _arguments(call)
    values = arguments.get("argvalues")
    if "argnames" not in arguments or not isinstance(values, ast.List | ast.Tuple) or not values.elts:
        raise ValueError("its sets are no literals")
    written = ast.literal_eval(arguments["argnames"])
    if isinstance(written, str):
        names = [part.strip() for part in written.split(",") if part.strip()]
        single = len(names) == 1 and not written.rstrip().endswith(",")
    else:
        names, single = list(written), False
    ids = ast.literal_eval(arguments["ids"]) if "ids" in arguments else None
    if isinstance(ids, str | set | dict) or isinstance(written, set | dict):
        raise ValueError("its names or ids are no list")
    known = [None] * len(values.elts) if not ids else list(ids)
    if len(known) != len(values.elts) or not names:
        raise ValueError("it has another number of ids than of sets")
    sets = [
        _set(value, index, names, identifier, single=single)
        for index, (value, identifier) in enumerate(zip(values.elts, known, strict=True))
    ]
    if len({parameters.id for parameters in sets}) < len(sets):
        raise ValueError("pytest numbers equal ids")
    if "ids" in arguments and any("\\" in parameters.id for parameters in sets):
        raise ValueError("pytest escapes these ids once more for each test of a class")
    return sets


def _set(node: ast.expr, index: int, names: Sequence[str], identifier: object, *, single: bool) -> _Set:
    """Return a parameter set. Raises ValueError when it is not a literal."""
    marks: Sequence[ast.expr] = []
    opening, closing = '__import__("pytest").param(' + ("" if single else "*"), ", id={!r})"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.param", "param"):
        values: Sequence[ast.expr] = node.args
        words = {keyword.arg: keyword.value for keyword in node.keywords}
        if not words.keys() <= {"id", "marks"}:
            raise ValueError("it has other arguments")
        named = ast.literal_eval(words["id"]) if "id" in words else None
        if named is not None and not isinstance(named, str):
            raise ValueError("its id is no text")
        identifier = identifier if named is None else named
        own = words.get("marks", ast.Tuple([], ast.Load()))
        marks = own.elts if isinstance(own, ast.List | ast.Tuple) else [own]
        opening, closing = "(", ")._replace(id={!r})"
    elif single:
        values = [node]
    elif isinstance(node, ast.List | ast.Tuple):
        values = node.elts
    else:
        raise ValueError("the set is no literal")
    if not all(map(mark_name, marks)) or any(mark_name(mark) == "parametrize" for mark in marks):
        raise ValueError("it has marks that are none")
    if len(values) != len(names) or any(isinstance(value, ast.Starred) for value in [node, *values]):
        raise ValueError("it has another number of values than of names")
    if identifier is not None:
        return _Set(_escaped(_text_of(identifier)), index, tuple(map(_mark, marks)))
    parts = [_id(ast.literal_eval(value), name, index) for value, name in zip(values, names, strict=True)]
    alone = [_id(ast.literal_eval(value), name, 0) for value, name in zip(values, names, strict=True)]
    text = "-".join(parts)
    pin = ("", "") if parts == alone else (opening, closing.format(text))
    return _Set(_escaped(text), index, tuple(map(_mark, marks)), pin)


def _text_of(value: object) -> str:
    """Return the text of an explicit id. Raises ValueError for an id that pytest refuses or changes."""
    if not isinstance(value, str | int | float | complex):
        raise ValueError("the id is no text")
    return str(value)


def _id(value: object, name: str, index: int) -> str:
    """Return the part of an id that pytest makes of a value, before escaping."""
    if isinstance(value, str) and len(value) <= _LONGEST_VALUE:
        return value
    if isinstance(value, bytes) and len(value) <= _LONGEST_VALUE:
        return value.decode("ascii")  # for other values pytest's escapes differ from those of text: a ValueError
    return str(value) if value is None or isinstance(value, int | float | complex) else f"{name}{index}"


_UNPRINTABLE = {number: f"\\x{number:02x}" for number in (*range(32), 127)} | {9: "\\t", 10: "\\n", 13: "\\r"}


def _escaped(text: str) -> str:
    """Return a text with the escapes of pytest's ids."""
    return text.encode("unicode_escape").decode("ascii").translate(_UNPRINTABLE)
