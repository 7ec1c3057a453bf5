"""Slices of a test module: the part of it that a cell of one test sees, and the meaning of this part for a key.

An edit of one test leaves the cells of the others cached: a slice has no bodies of other tests, and of each `parametrize` of
its own test only one set. The common parts of the slices are computed once, so a cell costs the same in a module of ten
tests and in one of ten thousand.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import re
from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from bkrules.analysis.module_syntax import Function, is_test, is_test_class, parsed
from bkrules.analysis.test_marks import Parametrize, nodes, parametrizes_of
from bkrules.model.action import parameters

LOOKS_AROUND = frozenset(
    {
        *("dir", "vars", "getattr", "attrgetter", "methodcaller", "getmembers", "eval", "exec", "__dict__", "__code__"),
        *("modules", "import_module", "__import__", "inspect", "gc", "module", "cls", "getparent", "session"),
        *(
            "ast",
            "tokenize",
            "linecache",
            "traceback",
            "lineno",
            "f_lineno",
            "tb_lineno",
            "co_firstlineno",
            "_getframe",
        ),
    }
)
"""Words of code that may inspect a module as a whole: its definitions, its text, its lines."""
_LOOKS_AT_ITS_OWN = LOOKS_AROUND | {"globals", "locals", "__file__"}
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class _Piece(NamedTuple):
    """A statement of the module or of a test class, the head of such a class, or its end. `test` is the number of a test."""

    kind: str
    meaning: str
    test: int | None = None


class _Body(NamedTuple):
    """The lines of a test's body, counted from 0, and the lines in their place where the test is emptied."""

    start: int
    end: int
    lines: Sequence[bytes]


class Slices:
    """The slices of one module. Raises SyntaxError.

    A test keeps its body in the slice of another one when the rest of that slice mentions its name.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._tree = parsed(source)
        self._tests = nodes(self._tree)
        # Lines as Python counts them: splitlines would also split at form feeds and the like.
        self._lines = _LINE.findall(source.encode())
        self._named: dict[str, list[int]] = {}
        self._numbers: dict[str, list[int]] = {}
        self._parametrizes: dict[int, Sequence[Parametrize]] = {}
        self._without_sets: dict[int, str] = {}
        for number, (name, node, _) in enumerate(self._tests):
            self._numbers.setdefault(name, []).append(number)
            self._named.setdefault(node.name, []).append(number)
        each = [words([node]) for _, node, _ in self._tests]
        shared = words([self._tree], {id(node) for _, node, _ in self._tests})
        self._mentions = [found & self._named.keys() for found in each]
        self._looks = [not _LOOKS_AT_ITS_OWN.isdisjoint(found) for found in each]
        self._some_look = any(self._looks)
        self._always = self._reached(shared & self._named.keys(), frozenset())
        """The tests that each slice has whole, since the part of the module outside of tests leads to them."""
        self._all_look = not _LOOKS_AT_ITS_OWN.isdisjoint(shared) or any(self._looks[test] for test in self._always)

    def is_whole(self, name: str, sets: Sequence[int] = ()) -> bool:
        """Return whether the cells of a test see the file itself, of which each byte counts.

        The test, or code of the module that it uses, may inspect the module's text or its definitions.
        """
        if self._looks_at_its_own(name):
            return True
        is_possible = self._some_look and self._whole(name) >= self._changed
        return is_possible and self.text(name, sets) == self._source

    def text(self, name: str, sets: Sequence[int] = ()) -> str:
        """Return the module with the body of every other test function removed, and its lines kept in place.

        With `sets`, the test keeps only the set of that number of each `parametrize`, with the id that it has among the
        others. The module stays unchanged when the test may inspect it.
        """
        return self.data(name, sets).decode()

    def data(self, name: str, sets: Sequence[int] = ()) -> bytes:
        """Return `text` as UTF-8. Only its size depends on the tests of the module, and not the number of steps."""
        if self._looks_at_its_own(name):
            return self._source.encode()
        bodies = [self._bodies[number] for number in self._whole(name) - self._always]
        parts = [(body.start, body.end, self._between(body.start, body.end)) for body in bodies if body is not None]
        if sets:
            [own] = self._numbers[name]
            node = self._tests[own][1]
            start, end = min(one.lineno for one in node.decorator_list) - 1, node.lineno
            parts.append((start, end, self._with_sets(start, end, self._calls(own), sets)))
        data, starts = self._emptied
        pieces: list[bytes] = []
        at = 0
        for start, end, part in sorted(parts):
            pieces += (data[at : starts[start]], part)
            at = starts[end]
        return b"".join([*pieces, data[at:]])

    def meaning(self, name: str, sets: Sequence[int] = ()) -> bytes:
        """Return what the slice means, for a key: two slices have the same meaning when they differ only in comments,
        blank lines and layout.

        The parts before and after the test count by digests that the cells share.
        """
        own, *more = self._numbers[name]
        others = sorted((self._whole(name) - self._always - {own}) | set(more))
        place = self._places[own]
        parts = {
            "before": self._before[place],
            "test": [name, self._of_sets(own, sets) if sets else self._digest(own)],
            "used": [(self._tests[other][0], self._digest(other)) for other in others],
            "after": self._after[place + 1],
        }
        return parameters(parts).encode()

    def _whole(self, name: str) -> frozenset[int]:
        """Return the tests that a slice has with their bodies."""
        own = self._numbers[name]
        return self._always | {*own, *self._found(own)}

    def _found(self, own: Iterable[int]) -> frozenset[int]:
        return self._reached({word for number in own for word in self._mentions[number]}, self._always)

    def _reached(self, mentioned: Iterable[str], known: frozenset[int]) -> frozenset[int]:
        """Return the tests to which these names lead, and the names in these tests, without those that are `known`."""
        found: set[int] = set()
        waiting = list(mentioned)
        while waiting:
            for number in self._named[waiting.pop()]:
                if number not in found and number not in known:
                    found.add(number)
                    waiting += self._mentions[number]
        return frozenset(found)

    def _looks_at_its_own(self, name: str) -> bool:
        own = self._numbers[name]
        return self._all_look or any(self._looks[number] for number in (*own, *self._found(own)))

    @cached_property
    def _bodies(self) -> list[_Body | None]:
        """The body of each test; None where it begins on a line of the signature, and stays."""
        return [self._body(node) for _, node, _ in self._tests]

    @cached_property
    def _emptied(self) -> tuple[bytes, list[int]]:
        """The module with the body of each test removed that not every slice has, and where its lines start."""
        lines = list(self._lines)
        for number, body in enumerate(self._bodies):
            if body is not None and number not in self._always:
                lines[body.start : body.end] = body.lines
        return b"".join(lines), list(accumulate(map(len, lines), initial=0))

    @cached_property
    def _starts(self) -> list[int]:
        """Where the lines of the module start."""
        return list(accumulate(map(len, self._lines), initial=0))

    @cached_property
    def _encoded(self) -> bytes:
        return b"".join(self._lines)

    def _between(self, start: int, end: int) -> bytes:
        return self._encoded[self._starts[start] : self._starts[end]]

    def _with_sets(self, first: int, last: int, calls: Sequence[Parametrize], sets: Sequence[int]) -> bytes:
        """Return the lines of decorators with only one set of each `parametrize`, and as many line ends as before."""
        edits = [
            (whole, part, *pin)
            for call, chosen in zip(calls, sets, strict=True)
            for whole, (part, pin) in zip(call.lists, call.parts(chosen), strict=True)
        ]
        pieces: list[bytes] = []
        at = self._starts[first]
        for whole, part, opening, closing in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset)):
            (start, end), (opens, closes) = self._span(whole), self._span(part)
            before, after = part.lineno - whole.lineno, (whole.end_lineno or 0) - (part.end_lineno or 0)
            kept = b"".join([opening.encode(), self._encoded[opens:closes], closing.encode()])
            pieces += (self._encoded[at:start], b"[", b"\n" * before, kept, b"\n" * after, b"]")
            at = end
        return b"".join([*pieces, self._encoded[at : self._starts[last]]])

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    @cached_property
    def _changed(self) -> frozenset[int]:
        """The tests that a slice changes when it empties them: most, but not one whose body is `...`."""
        return frozenset(
            number
            for number, body in enumerate(self._bodies)
            if body is not None and self._lines[body.start : body.end] != body.lines
        )

    def _body(self, node: Function) -> _Body | None:
        first, last = node.body[0], node.body[-1]
        assert last.end_lineno is not None
        start = min([first.lineno, *(decorator.lineno for decorator in getattr(first, "decorator_list", []))]) - 1
        if self._lines[start][: first.col_offset].strip(b" \t\f"):
            return None
        indent = b" " * first.col_offset
        return _Body(start, last.end_lineno, [indent + b"...\n", *[b"\n"] * (last.end_lineno - start - 1)])

    @cached_property
    def _pieces(self) -> list[_Piece]:
        numbers = {id(node): number for number, (_, node, _) in enumerate(self._tests)}
        pieces: list[_Piece] = []
        waiting: list[ast.stmt | None] = list(reversed(self._tree.body))
        while waiting:
            node = waiting.pop()
            if node is None:
                pieces.append(_Piece("end", ""))
            elif isinstance(node, ast.ClassDef) and is_test_class(node.name):
                pieces.append(_Piece("class", self._meant(_without_body(node))))
                waiting += [None, *reversed(node.body)]
            elif isinstance(node, Function) and is_test(node.name) and id(node) in numbers:
                number = numbers[id(node)]
                is_kept = number in self._always or self._bodies[number] is None
                pieces.append(_Piece("test", self._meant(node if is_kept else _without_body(node)), number))
            else:
                pieces.append(_Piece("other", self._meant(node)))
        return pieces

    @cached_property
    def _places(self) -> dict[int, int]:
        return {piece.test: place for place, piece in enumerate(self._pieces) if piece.test is not None}

    @cached_property
    def _before(self) -> list[str]:
        """The digest of all pieces before each place."""
        return _chain(self._pieces)

    @cached_property
    def _after(self) -> list[str]:
        """The digest of all pieces from each place on."""
        return _chain(self._pieces[::-1])[::-1]

    def _digest(self, number: int) -> str:
        return _hash(self._meant(self._tests[number][1]))

    def _calls(self, number: int) -> Sequence[Parametrize]:
        """Return the marks of a test that `sets` counts."""
        if number not in self._parametrizes:
            self._parametrizes[number] = parametrizes_of(self._tests[number][1])
        return self._parametrizes[number]

    def _of_sets(self, number: int, sets: Sequence[int]) -> list[object]:
        """Return what a test means with one set of each `parametrize`."""
        calls = self._calls(number)
        if number not in self._without_sets:
            node = copy.copy(self._tests[number][1])
            emptied = {id(call.node): call.without_sets() for call in calls}
            node.decorator_list = [emptied.get(id(one), one) for one in node.decorator_list]
            self._without_sets[number] = _hash(self._meant(node))
        parts = [
            [[*pin, self._meant(part)] for part, pin in call.parts(chosen)]
            for call, chosen in zip(calls, sets, strict=True)
        ]
        return [self._without_sets[number], parts]

    def _meant(self, node: ast.stmt | ast.expr) -> str:
        """Return a part of the module without its layout, or as it is written where Python cannot write it again."""
        try:
            return ast.unparse(node)
        except (RecursionError, ValueError):  # a sum of a thousand terms, or a number of thousands of digits
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) - 1
            return b"".join(self._lines[first : node.end_lineno]).decode()


def _without_body(node: Function | ast.ClassDef) -> ast.stmt:
    emptied = copy.copy(node)
    emptied.body = [] if isinstance(node, ast.ClassDef) else [ast.Expr(ast.Constant(...))]
    return emptied


def _chain(pieces: Sequence[_Piece]) -> list[str]:
    """Return a digest of the first pieces, for each number of them."""

    def add(before: str, piece: _Piece) -> str:
        return _hash(f"{before} {piece.kind} {piece.meaning}")

    return list(accumulate(pieces, add, initial=""))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def looks_at_its_own(source: str) -> bool:
    """Return whether code of a module may inspect the module's own definitions, text or lines."""
    return not _LOOKS_AT_ITS_OWN.isdisjoint(words([parsed(source)]))


def looks_around(source: str) -> bool:
    """Return whether code of a module may inspect the definitions, text or lines of a module that uses it."""
    return not LOOKS_AROUND.isdisjoint(words([parsed(source)]))


def meaning(source: str) -> str:
    """Return the source without the parts that change a result only when code inspects them: comments, blank lines, layout."""
    try:
        return ast.unparse(parsed(source))
    except (RecursionError, ValueError):  # as in `Slices`: keep its layout
        return source


def words(waiting: Sequence[ast.AST], without: Container[int] = ()) -> set[str]:
    """Return the names and texts in these nodes and all below them, without the nodes whose ids are in `without`."""
    found: set[str] = set()
    stack = list(waiting)
    while stack:
        node = stack.pop()
        if id(node) in without:
            continue
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Import):
            found.update(part for item in node.names for part in item.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            found.update([*(node.module or "").split("."), *(item.name for item in node.names)])
        stack += ast.iter_child_nodes(node)
    return found


class Names:
    """The names of the tests that pytest collects in cells of a module: those of all other functions, and of a test's own sets."""

    def __init__(self, tests: Iterable[tuple[str, tuple[int, ...], str]]) -> None:
        """Read the function, the sets and the name of each test."""
        self._all: dict[str, dict[tuple[int, ...], list[str]]] = {}
        for function, sets, name in tests:
            self._all.setdefault(function, {}).setdefault(sets, []).append(name)
        self._functions = sorted(self._all)
        self._numbers = {function: number for number, function in enumerate(self._functions)}

    @cached_property
    def _before(self) -> list[str]:
        return _chain(self._pieces)

    @cached_property
    def _after(self) -> list[str]:
        return _chain(self._pieces[::-1])[::-1]

    @cached_property
    def _pieces(self) -> list[_Piece]:
        return [_Piece("names", parameters(sorted(self._of(function)))) for function in self._functions]

    def _of(self, function: str) -> list[str]:
        return [name for names in self._all[function].values() for name in names if name]

    def meaning(self, function: str, sets: tuple[int, ...]) -> bytes:
        """Return what the list means, for a key."""
        number = self._numbers[function]
        own = sorted(filter(None, self._all[function][sets]))
        return parameters({"before": self._before[number], "own": own, "after": self._after[number + 1]}).encode()

    def text(self, function: str, sets: tuple[int, ...]) -> bytes:
        """Return the list as a cell reads it."""
        others = [name for other in self._functions if other != function for name in self._of(other)]
        return parameters(sorted([*others, *filter(None, self._all[function][sets])])).encode()
