"""The slice of a module for one cell alone: read, cut and compared with nothing shared. `analysis/slices.py` must give the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from bkrules.analysis import slices, test_marks
from bkrules.analysis.module_syntax import parsed
from bkrules.analysis.slices import looks_at_its_own, words
from bkrules.analysis.test_marks import Test
from bkrules.model.action import parameters


def shown(source: str, test: Test) -> str | None:
    """The source that a test's cell sees; None for the file itself, of which each byte counts."""
    text = only_test(source, test.callable, test.sets)
    return None if text == source and looks_at_its_own(text) else text


def declared(tests: Sequence[Test], test: Test, *, whole: bool) -> bytes:
    """The names of the tests that pytest collects in the cell of a test."""
    seen = [one.in_pytest for one in tests if whole or one.callable != test.callable or one.sets == test.sets]
    return parameters(sorted(filter(None, seen))).encode()


def only_test(source: str, keep: str, sets: Sequence[int] = ()) -> str:
    """Return the module with the body of every other test function removed, and its lines kept in place.

    The module stays unchanged when the test, or code of the module that it uses, may inspect the module's text. With
    `sets`, the test keeps only the set of that number of each `parametrize`.

    A cell reads only this source, so an edit of one test leaves the other cells cached. A test keeps its body when the
    rest of the module mentions its name.
    """
    tree = parsed(source)
    tests = test_marks.nodes(tree)
    kept = {id(node) for name, node, _ in tests if name == keep}
    others = {id(node): node for _, node, _ in tests if id(node) not in kept}
    used = words([tree], others)
    while called := [key for key, node in others.items() if node.name in used]:
        for key in called:
            used |= words([others.pop(key)])
    if used & slices._LOOKS_AT_ITS_OWN:
        return source
    # Lines as Python counts them: str.splitlines would also split at form feeds and the like.
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", source)
    for node in others.values():
        first, last = node.body[0], node.body[-1]
        assert last.end_lineno is not None
        start = min([first.lineno, *(decorator.lineno for decorator in getattr(first, "decorator_list", []))])
        if lines[start - 1][: first.col_offset].strip(" \t\f"):
            continue  # the body begins on a line of the signature
        indent = " " * first.col_offset
        lines[start - 1 : last.end_lineno] = [f"{indent}...\n", *["\n"] * (last.end_lineno - start)]
    text = "".join(lines)
    return only_sets(text, keep, sets) if sets else text


def only_sets(source: str, name: str, sets: Sequence[int]) -> str:
    """Return the module with only the test's own set in each `parametrize` of the test `name`, and with its lines kept in place.

    The set keeps the id that it has among the others.
    """
    [calls] = [
        test_marks._parametrizes(test_marks._decorators(node))
        for test, node, _ in test_marks.nodes(parsed(source))
        if test == name
    ]
    data = source.encode()
    starts = [0, *(line.end() for line in re.finditer(rb"[^\r\n]*(?:\r\n|\r|\n)", data))]
    edits: list[tuple[int, int, int, int, str, str]] = []
    for call, number in zip(calls, sets, strict=True):
        assert isinstance(call, ast.Call)
        arguments = test_marks._arguments(call)
        pin = test_marks._sets(call)[number].pin
        for key in ("argvalues", "ids"):
            node = arguments.get(key)
            if isinstance(node, ast.List | ast.Tuple) and node.elts:
                places = [_span(part, starts) for part in (node, node.elts[number])]
                edits.append((*places[0], *places[1], *(pin if key == "argvalues" else ("", ""))))
    for start, end, first, last, opening, closing in sorted(edits, reverse=True):
        before, after = (b"\n" * len(re.findall(rb"\r\n|\r|\n", data[a:b])) for a, b in ((start, first), (last, end)))
        kept = b"".join([opening.encode(), data[first:last], closing.encode()])
        data = b"".join([data[:start], b"[", before, kept, after, b"]", data[end:]])
    return data.decode()


def _span(node: ast.expr, starts: Sequence[int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
