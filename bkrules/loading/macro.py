"""`load`: names that one file of the workspace imports from another.

Loads are statements: they are found in the syntax and followed before a file is evaluated, so the files of a package
are known without evaluating it. Only names that a macro file itself defines can be loaded from it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bkrules.errors import LoadError, did_you_mean
from bkrules.loading.glob import BUILD_FILE
from bkrules.loading.root import MARKER
from bkrules.loading.sources import Record, Sources
from bkrules.loading.syntax import forbidden
from bkrules.model.label import Label, LabelError, module_of, parse_label, shown_package

Evaluate = Callable[[bytes, str, str, Record], dict[str, Any]]
_DEEPEST = 64
_SHAPE = 'write  load("//pkg:file.py", "name", other = "name")'


@dataclass(frozen=True)
class Load:
    """A load statement: the file as it is written, and the file's names by their new names."""

    file: str
    names: dict[str, str]
    line: int


@dataclass(frozen=True)
class _Macro:
    names: dict[str, Any]
    record: Record


def load_of(statement: ast.stmt, functions: set[str], file: str) -> Load | None:
    """Return the load of a statement that calls one of `functions`. Raises LoadError."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in functions:
        return None
    where = f"{file}:{call.lineno}"
    words = [_string(argument, file) for argument in call.args]
    aliases = {keyword.arg or "": _string(keyword.value, file) for keyword in call.keywords}
    if not words or "" in aliases or not (words[1:] or aliases):
        raise LoadError(
            "bad-load", f"{file}: load takes a file and the names to import from it", where=where, hint=_SHAPE
        )
    names = dict(zip(words[1:], words[1:], strict=True))
    if len(names) + 1 != len(words) or names.keys() & aliases.keys():
        raise LoadError("duplicate-name", f"{file}: load binds a name twice", where=where)
    names |= aliases
    for name in names:
        if name.startswith("__"):
            raise forbidden("name", f"the name {name!r}", where, "it leads out of the build file")
    return Load(words[0], names, call.lineno)


def _string(node: ast.expr, file: str) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise LoadError(
        "bad-load", f"{file}: the arguments of load must be string literals", where=f"{file}:{node.lineno}", hint=_SHAPE
    )


class Macros:
    """The macro files of a workspace, each evaluated once, by `evaluate`."""

    def __init__(self, sources: Sources, evaluate: Evaluate) -> None:
        self._sources = sources
        self._evaluate = evaluate
        self._known: dict[Label, _Macro] = {}
        self._open: list[tuple[str, str]] = []  # the files that are being loaded, each with the place of its load

    def names(self, load: Load, where: str, package: str, record: Record) -> dict[str, Any]:
        """Return the names that a load statement at `where` binds. Add all reads to `record`. Raises LoadError."""
        macro = self._macro(self._label(load, where, package), where, record)
        record.add(macro.record)
        return {name: _pick(macro.names, wanted, load.file, where) for name, wanted in load.names.items()}

    def _label(self, load: Load, where: str, package: str) -> Label:
        try:
            label = parse_label(load.file, package)
        except LabelError as error:
            raise LoadError("bad-load", f"load: {error}", where=where) from error
        name = label.name.rpartition("/")[2]
        if not load.file.startswith(("//", ":", "@")) or not name.endswith(".py") or name in (BUILD_FILE, MARKER):
            raise LoadError(
                "bad-load",
                f"load: {load.file!r} must be '//pkg:file.py' or ':file.py', a file other than {BUILD_FILE} and {MARKER}",
                where=where,
            )
        try:
            self._sources.check(label, package)
        except LoadError as error:
            error.where = error.where or where
            raise
        return label

    def _macro(self, label: Label, where: str, record: Record) -> _Macro:
        path = label.path
        if path in [file for file, _ in self._open]:
            raise self._cycle(path, where)
        if label not in self._known:
            if len(self._open) >= _DEEPEST:
                message = f"{path}: more than {_DEEPEST} files load each other in a chain"
                raise LoadError("too-deep", message, where=where, hint="load what you need from where it is defined")
            own = Record()
            text = self._text(label, where, own)
            self._open.append((path, where))
            try:
                names = self._evaluate(text, path, label.package, own)
            finally:
                self._open.pop()
            self._known[label] = _Macro(names, own)
        return self._known[label]

    def _text(self, label: Label, where: str, record: Record) -> bytes:
        parts = label.path.split("/")[:-1]
        least = 1 if module_of(label.path) else 0
        owner = next(
            (
                "/".join(parts[:count])
                for count in range(len(parts), least - 1, -1)
                if self._sources.is_package("/".join(parts[:count]), record)
            ),
            None,
        )
        if owner is None or len(owner) < len(label.package):
            raise LoadError(
                "unknown-package",
                f"load: {shown_package(label.package)} has no {BUILD_FILE}",
                where=where,
                hint=f"an empty {BUILD_FILE} makes a folder a package",
            )
        if owner != label.package:
            own = Label(owner, label.path[len(owner) + 1 :])
            raise LoadError("unknown-file", f"load: {label} is in another package", where=where, hint=f"write {own}")
        if not self._sources.inside(label.path):
            whole = "module" if least else "workspace"
            raise LoadError("unknown-file", f"load: {label} is a link that leads out of its {whole}", where=where)
        text = self._sources.read(label.path, record)
        if text is None:
            hint = did_you_mean(
                label.name, self._sources.beside(label.package), f"files of {shown_package(label.package)}"
            )
            raise LoadError("unknown-file", f"load: there is no file {label}", where=where, hint=hint)
        return text

    def _cycle(self, path: str, where: str) -> LoadError:
        files = [file for file, _ in self._open]
        way = [*self._open[files.index(path) :], (path, where)]
        steps = [f"{place}: {one} -> {other}" for (one, _), (other, place) in pairwise(way)]
        return LoadError("load-cycle", f"{path}: loads itself", where="\n".join(steps))


def _pick(names: dict[str, Any], name: str, file: str, where: str) -> Any:
    if name.startswith("_"):
        raise LoadError(
            "private-name",
            f"load: {name!r} is private to {file}",
            where=where,
            hint="names that begin with _ are private to their file",
        )
    if name not in names:
        known = [public for public in names if not public.startswith("_")]
        raise LoadError(
            "unknown-name",
            f"load: {file} defines no {name!r}",
            where=where,
            hint=did_you_mean(name, known, "it defines"),
        )
    return names[name]
