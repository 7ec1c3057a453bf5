"""Cells: the points of a test matrix.

A matrix names its axes; a cell picks one value on each. A cell's name is also its place in the outputs, so axes are in
alphabetical order, whatever the order in a BUILD.py.
"""

from __future__ import annotations

import ast
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bkrules.analysis.literal_imports import literal_imports
from bkrules.analysis.module_syntax import parsed


def choices(axes: Mapping[str, Iterable[str]]) -> list[tuple[tuple[str, str], ...]]:
    """Return every combination of the axes, each as pairs of axis and choice, in a stable order."""
    names = sorted(axes)
    return [
        tuple(zip(names, point, strict=True)) for point in itertools.product(*(sorted(axes[name]) for name in names))
    ]


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
