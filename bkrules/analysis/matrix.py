"""Cells: the points of a test matrix.

A matrix names its axes; a cell picks one value on each. A cell's name is also its place in the outputs, so axes are in
alphabetical order, whatever the order in a BUILD.py.
"""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from bkrules.analysis.literal_imports import literal_imports
from bkrules.analysis.module_syntax import parsed
from bkrules.analysis.test_marks import nodes, only_sets

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


def choices(axes: Mapping[str, Iterable[str]]) -> list[tuple[tuple[str, str], ...]]:
    """Return every combination of the axes, each as pairs of axis and choice, in a stable order."""
    names = sorted(axes)
    return [
        tuple(zip(names, point, strict=True)) for point in itertools.product(*(sorted(axes[name]) for name in names))
    ]


def looks_at_its_own(source: str) -> bool:
    """Return whether code of a module may inspect the module's own definitions, text or lines."""
    return not _LOOKS_AT_ITS_OWN.isdisjoint(_words([parsed(source)]))


def looks_around(source: str) -> bool:
    """Return whether code of a module may inspect the definitions, text or lines of a module that uses it."""
    return not LOOKS_AROUND.isdisjoint(_words([parsed(source)]))


def only_test(source: str, keep: str, sets: Sequence[int] = ()) -> str:
    """Return the module with the body of every other test function removed, and its lines kept in place.

    The module stays unchanged when the test, or code of the module that it uses, may inspect the module's text. With
    `sets`, the test keeps only the set of that number of each `parametrize`.

    A cell reads only this source, so an edit of one test leaves the other cells cached. A test keeps its body when the
    rest of the module mentions its name.
    """
    tree = parsed(source)
    tests = nodes(tree)
    kept = {id(node) for name, node, _ in tests if name == keep}
    others = {id(node): node for _, node, _ in tests if id(node) not in kept}
    used = _words([tree], others)
    while called := [key for key, node in others.items() if node.name in used]:
        for key in called:
            used |= _words([others.pop(key)])
    if used & _LOOKS_AT_ITS_OWN:
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


def meaning(source: str) -> str:
    """Return the source without the parts that change a result only when code inspects them: comments, blank lines, layout."""
    try:
        return ast.unparse(parsed(source))
    except (
        RecursionError,
        ValueError,
    ):  # a sum of a thousand terms, or a number of thousands of digits: keep its layout
        return source


def _words(waiting: Sequence[ast.AST], without: Container[int] = ()) -> set[str]:
    """Return the names and texts in these nodes and all below them, without the nodes whose ids are in `without`."""
    words: set[str] = set()
    stack = list(waiting)
    while stack:
        node = stack.pop()
        if id(node) in without:
            continue
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
        elif isinstance(node, ast.Import):
            words.update(part for item in node.names for part in item.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            words.update([*(node.module or "").split("."), *(item.name for item in node.names)])
        stack += ast.iter_child_nodes(node)
    return words


def imported_files(source: str, path: str, roots: Sequence[str], exists: Callable[[str], bool]) -> Iterator[str]:
    """Yield the workspace files that the module at `path` imports, by its syntax; absolute names are searched below `roots`."""
    for level, name in imports(source, package=os.path.basename(path) == "__init__.py"):
        yield from (file for base in _bases(path, level, roots) for file in _files(base, name) if exists(file))


@functools.lru_cache(maxsize=256)
def imports(source: str, *, package: bool) -> tuple[tuple[int, str], ...]:
    """Return the names that a source imports, each with the level of a relative import."""
    tree = parsed(source)
    names: dict[tuple[int, str], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(dict.fromkeys((0, item.name) for item in node.names))
        elif isinstance(node, ast.ImportFrom):
            names.update(dict.fromkeys((node.level, name) for name in _imported_names(node)))
    names.update(dict.fromkeys(literal_imports(tree, package=package)))
    return tuple(names)


def imported_modules(
    node: ast.ImportFrom, name: str, path: str, roots: Sequence[str], exists: Callable[[str], bool]
) -> list[str]:
    """Yield the workspace files that `from ... import` in the module at `path` may find: the module's file or the submodule's."""
    module = ".".join(filter(None, [node.module, name]))
    tops = [f"{base}/{module.replace('.', '/')}".strip("/") for base in _bases(path, node.level, roots)]
    ends = (".py", "/__init__.py")
    return [file for top in tops for end in ends if exists(file := f"{top}{end}".removeprefix("/"))]


def _imported_names(node: ast.ImportFrom) -> list[str]:
    module = [node.module] if node.module else []
    return [".".join([*module, *name]) for name in ([], *([item.name] for item in node.names))]


def _bases(path: str, level: int, roots: Sequence[str]) -> Sequence[str]:
    return [_up(path, level)] if level else roots


def _up(path: str, level: int) -> str:
    for _ in range(level):
        path = os.path.dirname(path)
    return path


def _files(base: str, module: str) -> Iterator[str]:
    parts = [base] if base else []
    if not module:
        yield "/".join([*parts, "__init__.py"])
    for part in filter(None, module.split(".")):
        parts.append(part)
        yield "/".join(parts) + ".py"
        yield "/".join(parts) + "/__init__.py"
