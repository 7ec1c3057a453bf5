"""WORKSPACE.py, BUILD.py and macro files: their bytes become targets and names.

Build files are Python without its ways out: a whitelist of syntax, a short list of builtins, no attribute that begins
with an underscore, and no import but `from bkrules import ...`. They compute values from literals, from the files that
they load, and from the names that a glob finds; loading depends on nothing else.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from bkrules.errors import BkError, LoadError, did_you_mean
from bkrules.loading import compilation, escape, syntax
from bkrules.loading.glob import BadGlob, Glob
from bkrules.loading.macro import Load, Macros, load_of
from bkrules.loading.meter import Refused, shown
from bkrules.loading.sources import Record, Sources
from bkrules.loading.values import BUILTINS, Runtime
from bkrules.model.label import Label, valid_name
from bkrules.model.rule import Location, Rule, Target, check_attributes

EXPLAINED = {
    "open": "build files do no I/O; name the file as a label in an attribute instead",
    "print": "build files have no output; use `bk query` to see what they declare",
    "set": "the order of a set changes from run to run; use a list or a dict",
}
_LONGEST = 1_000
_FRAMES = 3_000
"""The recursion limit: more than loading ever needs, so that its own limits, which do not depend on the caller's stack,
apply first.
"""
_LABEL_STEPS = 10
"""The cost of reading and keeping one label, in steps of the meter."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_Place = tuple[str, int]


@dataclass
class Package:
    """The targets of one build file, by name. `workspace` is the name that a WORKSPACE.py declares."""

    name: str
    file: str
    targets: dict[str, Target] = field(default_factory=dict)
    workspace: str = ""
    record: Record = field(default_factory=Record, compare=False, repr=False)


def load(text: bytes, file: str, package: str, rules: Mapping[str, Rule], *, top: bool = False) -> Package:
    """Return the targets that `text` alone declares, without other files. Raises LoadError."""
    return Loader(rules, Sources(None)).package(text, Package(package, file), top=top)


NamesOf = Callable[[str], Mapping[str, Callable[..., Any]] | None]


class Loader:
    """Evaluates the files of one workspace. Each macro file is evaluated once."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        sources: Sources,
        rules_of: Callable[[str], Mapping[str, Rule] | None] = lambda _module: None,
    ) -> None:
        """`rules_of` returns the rules of a plugin's module by name, and None for a module that is no plugin's."""
        self._rules = rules
        self._rules_of = rules_of
        self._of_plugins: dict[str, dict[str, Callable[..., Any]] | None] = {}
        self._sources = sources
        self._runtime = Runtime()
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _FRAMES))
        self._lines: dict[str, dict[int, dict[str, int]]] = {}
        self._package: Package | None = None
        self._names: dict[str, Callable[..., Any]] = {name: self._rule(rule) for name, rule in rules.items()}
        self._names["glob"] = escape.trusted(self._glob)
        self._names["load"] = escape.trusted(self._load)
        self._macros = Macros(sources, self._macro)

    def package(self, text: bytes, package: Package, *, top: bool = False) -> Package:
        """Return the package that `text` declares. `top` allows `workspace()`. Raises LoadError."""
        names = {**self._names, "workspace": escape.trusted(self._workspace)} if top else self._names
        self._evaluate(text, package.file, package.name, names, package.record, package)
        return package

    def _macro(self, text: bytes, file: str, package: str, record: Record) -> dict[str, Any]:
        given, scope = self._evaluate(text, file, package, self._names, record, None)
        own = {name: value for name, value in scope.items() if name not in given}
        self._runtime.freeze(own.values(), file)
        return own

    def _evaluate(
        self,
        text: bytes,
        file: str,
        folder: str,
        names: Mapping[str, Callable[..., Any]],
        record: Record,
        package: Package | None,
    ) -> tuple[set[str], dict[str, Any]]:
        tree = syntax.parse(text, file)
        given, loads = _take_imports(tree, file, names, self._plugin_names)
        syntax.check(tree, file)
        for one in loads:
            for name, value in self._macros.names(one, f"{file}:{one.line}", folder, record).items():
                if name in given:
                    raise LoadError(
                        "duplicate-name", f"{file}: {name!r} is bound twice by load", where=f"{file}:{one.line}"
                    )
                given[name] = value
        self._lines[file] = syntax.attribute_lines(tree)
        code = compilation.compiled(tree, file)
        scope = {**given, "__builtins__": self._runtime.scope, "__name__": file}
        self._runtime.start()
        self._package = package
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                escape.run(code, scope, self._escape)
        except LoadError:
            raise
        except Exception as error:
            raise self._explain(error, file, names) from error
        finally:
            self._package = None
        return {*given, "__builtins__", "__name__"}, scope

    # Errors and places.

    def _chain(self, places: Iterable[_Place]) -> list[_Place]:
        """Return the places in build files, from the outermost to the innermost, one for consecutive places in the same file."""
        chain: list[_Place] = []
        for file, line in places:
            if file in self._lines:
                if chain and chain[-1][0] == file:
                    chain.pop()
                chain.append((file, line))
        return chain

    def _here(self, frame: FrameType | None) -> list[_Place]:
        places: list[_Place] = []
        while frame is not None:
            code = frame.f_code
            if code.co_filename in self._lines:
                places.append((code.co_filename, frame.f_lineno))
                if code.co_name == "<module>":
                    break
            frame = frame.f_back
        return self._chain(reversed(places))

    def _explain(self, error: Exception, file: str, names: Mapping[str, object]) -> LoadError:
        places = []
        trace = error.__traceback__
        while trace is not None:
            places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        where = _text(self._chain(places) or [(file, 1)])
        if isinstance(error, Refused):
            return LoadError(error.reason, f"{file}: {error}", where=where, hint=error.hint)
        if isinstance(error, NameError) and error.name:
            name = error.name
            hint = EXPLAINED.get(name) or (
                f"write `from bkrules import {name}` first"
                if name in names
                else did_you_mean(name, [*names, *BUILTINS[3:]], "available")
            )
            if hasattr(builtins, name) and name not in EXPLAINED:
                hint = "build files cannot use the host: only pure builtins are available\n" + hint
            return LoadError(
                "unknown-name", f"{file}: {name!r} is not available in a build file", where=where, hint=hint
            )
        # the text of a KeyError is that of the key, however large
        said = shown(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)[:_LONGEST]
        text = _ADDRESS.sub("", f"{type(error).__name__}: {said}")
        return LoadError("evaluation", f"{file}: {text}", where=where)

    def _escape(self, event: str, frame: FrameType) -> LoadError:
        chain = self._here(frame)
        file = chain[0][0] if chain else "a build file"
        return LoadError(
            "escape",
            f"{file}: it tries to leave the build file, by {event!r}",
            where=_text(chain),
            hint="build files do no I/O, start nothing and import nothing; what they need is a label or a glob",
        )

    # The functions that build files call.

    def _plugin_names(self, module: str) -> Mapping[str, Callable[..., Any]] | None:
        """Return the rules of a plugin's module as build files call them; None for a module that is no plugin's."""
        if module not in self._of_plugins:
            rules = self._rules_of(module)
            names = None if rules is None else {name: self._rule(rule) for name, rule in rules.items()}
            self._of_plugins[module] = names
        return self._of_plugins[module]

    def _rule(self, rule: Rule) -> Callable[..., None]:
        def declare(*args: Any, **given: Any) -> None:
            chain = self._here(sys._getframe(2))
            try:
                self._declare(rule, chain, args, given)
            except LoadError as error:
                error.where = "\n".join([*(_text([place]) for place in chain[:-1]), error.where])
                raise

        declare.__name__ = rule.name
        return escape.trusted(declare)

    def _location(self, place: _Place) -> Location:
        file, line = place
        return Location(file, line, self._lines[file].get(line, {}))

    def _declare(self, rule: Rule, chain: list[_Place], args: tuple[Any, ...], given: dict[str, Any]) -> None:
        where = self._location(chain[-1])
        package = self._current(rule.name, where)
        if args:
            raise LoadError(
                "positional",
                f"{rule.name}: attributes are given by name, but {shown(args[0])} was not",
                where=str(where),
            )
        name = given.get("name")
        if not isinstance(name, str) or not valid_name(name):
            raise LoadError(
                "bad-name",
                f"{rule.name}: 'name' must be a target name, but was {shown(name)}",
                where=where.of("name"),
                hint='for example: name = "busybox"',
            )
        label = Label(package.name, name)
        for attribute, value in given.items():
            try:
                given[attribute] = self._runtime.plain(value)
            except TypeError as error:
                raise LoadError(
                    "bad-attribute", f"{label}: {attribute!r} {error}", where=where.of(attribute)
                ) from error
        if name in package.targets:
            first = package.targets[name].location
            raise LoadError(
                "duplicate-name", f"{label}: declared twice", where=str(where), hint=f"the first one is at {first}"
            )
        self._runtime.meter.charge(_LABEL_STEPS * _labels_in(rule, given))
        attributes, extra = check_attributes(rule, label, given, where)
        own = next((place for place in reversed(chain) if place[0] == package.file), chain[0])
        package.targets[name] = Target(label, rule, attributes, extra, self._location(own))

    def _current(self, name: str, where: Location) -> Package:
        if self._package is None:
            raise LoadError(
                "top-level-call",
                f"{where.file}: {name} is called at the top level of a file that others load",
                where=str(where),
                hint="call it in a function, which a BUILD.py calls",
            )
        return self._package

    def _glob(self, include: Any, exclude: Any = (), allow_empty: Any = False) -> list[str]:
        chain = self._here(sys._getframe(2))
        where = _text(chain)
        package = self._current("glob", self._location(chain[-1]))
        for name, value in (("include", include), ("exclude", exclude)):
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise LoadError(
                    "bad-glob", f"glob: {name!r} must be a list of strings, but was {shown(value)}", where=where
                )
        if not isinstance(allow_empty, bool):
            raise LoadError(
                "bad-glob", f"glob: 'allow_empty' must be True or False, but was {shown(allow_empty)}", where=where
            )
        glob = Glob(package.name, tuple(include), tuple(exclude))
        try:
            names = self._sources.glob(glob, package.record, self._runtime.meter.charge)
        except BadGlob as error:
            raise LoadError("bad-glob", f"glob: {error}", where=where) from error
        if not names and not allow_empty:
            raise LoadError(
                "empty-glob",
                f"glob: no file of //{package.name} matches {', '.join(map(repr, include)) or 'no pattern'}",
                where=where,
                hint="allow_empty = True if there may be none; files of a folder with its own BUILD.py are not in the package",
            )
        return list(names)

    def _load(self, *_args: Any, **_given: Any) -> None:
        where = _text(self._here(sys._getframe(2)))
        raise LoadError(
            "bad-load",
            f"{where.partition(':')[0]}: load is a statement, not a function",
            where=where,
            hint='write it at the top level, by itself:  load("//pkg:file.py", "name")',
        )

    def _workspace(self, *, name: str, noplugins: list[str] | tuple[str, ...] = ()) -> None:
        where = self._location(self._here(sys._getframe(2))[-1])
        if not isinstance(name, str):
            raise LoadError(
                "bad-name", f"workspace: 'name' must be a string, but was {shown(name)}", where=where.of("name")
            )
        # The names are read by syntax, in `plugins.py`.
        if not isinstance(noplugins, list | tuple) or not all(isinstance(one, str) for one in noplugins):
            what = f"workspace: 'noplugins' must be a list of strings, but was {shown(noplugins)}"
            raise LoadError("bad-attribute", what, where=where.of("noplugins"))
        if self._package is not None:
            self._package.workspace = name


def _labels_in(rule: Rule, given: Mapping[str, Any]) -> int:
    """Return the number of labels in the attributes of a target."""
    lists = (
        given.get(name) for name, attribute in rule.attributes.items() if attribute.kind in ("labels", "label_dict")
    )
    return sum(len(one) for one in lists if isinstance(one, list | tuple | dict))


def _text(places: Iterable[_Place]) -> str:
    return "\n".join(f"{file}:{line}" for file, line in places)


def _take_imports(
    tree: ast.Module,
    file: str,
    names: Mapping[str, Callable[..., Any]],
    names_of: NamesOf,
) -> tuple[dict[str, Any], list[Load]]:
    """Return the names that a file imports, and its loads, in order; remove both from the tree. Raises LoadError."""
    given: dict[str, Any] = {}
    rest: list[ast.stmt] = []
    loads: list[Load] = []
    for statement in tree.body:
        module = statement.module if isinstance(statement, ast.ImportFrom) and not statement.level else None
        where = f"{file}:{statement.lineno}"
        known = names if module == "bkrules" else _of_plugin(module, names_of, where) if module else None
        if isinstance(statement, ast.ImportFrom) and module and known is not None:
            for item in statement.names:
                given[item.asname or item.name] = _imported(item, known, where, module)
        else:
            rest.append(statement)
    of_load = {name for name, value in given.items() if value is names["load"]}
    tree.body = []
    for statement in rest:
        found = load_of(statement, of_load, file)
        if found is None:
            tree.body.append(statement)
        else:
            loads.append(found)
    return given, loads


def _of_plugin(module: str, names_of: NamesOf, where: str) -> Mapping[str, Callable[..., Any]] | None:
    """Return the rules of a plugin's module; None for a module that is no plugin's. Raises LoadError for a broken plugin."""
    try:
        return names_of(module)
    except BkError as error:
        message = f"{where.rpartition(':')[0]}: {error.message}"
        raise LoadError(error.reason, message, where=where, hint=error.hint) from error


def _imported(item: ast.alias, names: Mapping[str, Callable[..., Any]], where: str, module: str) -> Callable[..., Any]:
    if item.name not in names:
        raise LoadError(
            "unknown-rule",
            f"{where.rpartition(':')[0]}: {module} has no rule {item.name!r}",
            where=where,
            hint=did_you_mean(item.name, names, "rules"),
        )
    if (item.asname or "").startswith("__"):
        raise syntax.forbidden("name", f"the name {item.asname!r}", where, "it leads out of the build file")
    return names[item.name]
