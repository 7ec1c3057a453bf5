"""The loader of WORKSPACE.py, BUILD.py and macro files: their bytes become targets and names.

Build files are Python without its ways out: a whitelist of syntax, a short list of builtins, no attribute that begins
with an underscore, and no import but `from bkrules import ...`. They compute values from literals, from the files that
they load, from the names that a glob finds, and from the names of the installed workers; loading depends on nothing else.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from bkrules.errors import LoadError
from bkrules.loading import compilation, escape, syntax
from bkrules.loading.explain import explain
from bkrules.loading.glob import BadGlob, Glob
from bkrules.loading.imports import take_imports
from bkrules.loading.macro import Macros
from bkrules.loading.meter import raise_recursion_limit, shown
from bkrules.loading.modules import FUNCTION
from bkrules.loading.package import Package
from bkrules.loading.places import Place, Places, text_of
from bkrules.loading.runtime import Runtime
from bkrules.loading.sources import Record, Sources
from bkrules.loading.values import Function
from bkrules.model.label import Label, shown_package, valid_name
from bkrules.model.rule import Location, Rule, Target, check_attributes

_LABEL_STEPS = 10
"""The cost of reading and keeping one label, in steps of the meter."""


def load(text: bytes, file: str, package: str, rules: Mapping[str, Rule], *, top: bool = False) -> Package:
    """Return the targets that `text` alone declares, without other files. Raises LoadError."""
    return Loader(rules, Sources(None)).package(text, Package(package, file), top=top)


class Loader:
    """Evaluates the files of one workspace. Each macro file is evaluated once."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        sources: Sources,
        rules_of: Callable[[str], Mapping[str, Rule] | None] = lambda _module: None,
        workers: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """`rules_of` returns the rules of a plugin's module by name, and None for a module that is no plugin's; `workers` the
        names of the installed workers.
        """
        self._rules = rules
        self._rules_of = rules_of
        self._workers = workers
        self._of_plugins: dict[str, dict[str, Callable[..., Any]] | None] = {}
        self._sources = sources
        self._runtime = Runtime()
        raise_recursion_limit()
        self._places = Places()
        self._package: Package | None = None
        self._names: dict[str, Callable[..., Any]] = {name: self._rule(rule) for name, rule in rules.items()}
        self._names["glob"] = escape.trusted(self._glob)
        self._names["load"] = escape.trusted(self._load)
        self._names["installed_workers"] = escape.trusted(self._installed_workers)
        self._macros = Macros(sources, self._macro)

    def package(self, text: bytes, package: Package, *, top: bool = False) -> Package:
        """Return the package that `text` declares. `top` allows `workspace()`. Raises LoadError."""
        of_top = {"workspace": escape.trusted(self._workspace), FUNCTION: escape.trusted(self._bk_dep)}
        names = {**self._names, **of_top} if top else self._names
        self._evaluate(text, package.file, package.name, names, package.record, package)
        return package

    def _macro(self, text: bytes, file: str, package: str, record: Record) -> dict[str, Any]:
        imported, scope = self._evaluate(text, file, package, self._names, record, None)
        defined = {name: value for name, value in scope.items() if name not in imported}
        self._runtime.freeze(defined.values(), file)
        return defined

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
        imported, loads, modules = take_imports(tree, file, names, self._plugin_names)
        if package is not None:
            package.modules.update(modules)
        syntax.check(tree, file)
        for statement in loads:
            for name, value in self._macros.names(statement, f"{file}:{statement.line}", folder, record).items():
                if name in imported:
                    raise LoadError(
                        "duplicate-name", f"{file}: {name!r} is bound twice by load", where=f"{file}:{statement.line}"
                    )
                imported[name] = value
        self._places.add(file, tree)
        code = compilation.compiled(tree, file)
        scope = {**imported, "__builtins__": self._runtime.scope, "__name__": file}
        self._runtime.start()
        self._package = package
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                escape.run(code, scope, self._escape)
        except LoadError:
            raise
        except Exception as error:
            where = text_of(self._places.of_error(error) or [(file, 1)])
            raise explain(error, file, where, names, {name for name in imported if name not in names}) from error
        finally:
            self._package = None
        return {*imported, "__builtins__", "__name__"}, scope

    def _escape(self, event: str, frame: FrameType) -> LoadError:
        chain = self._places.here(frame)
        file = chain[0][0] if chain else "a build file"
        return LoadError(
            "escape",
            f"{file}: it tries to leave the build file, by {event!r}",
            where=text_of(chain),
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
        def declare(*args: Any, **attributes: Any) -> None:
            chain = self._places.here(sys._getframe(2))
            try:
                self._declare(rule, chain, args, attributes)
            except LoadError as error:
                error.where = "\n".join([*(text_of([place]) for place in chain[:-1]), error.where])
                raise

        declare.__name__ = rule.name
        return escape.trusted(declare)

    def _declare(self, rule: Rule, chain: list[Place], args: tuple[Any, ...], values: dict[str, Any]) -> None:
        where = self._places.location(chain[-1])
        package = self._current(rule.name, where)
        if args:
            raise LoadError(
                "positional",
                f"{rule.name}: attributes are given by name, but {shown(args[0])} was not",
                where=str(where),
            )
        name = values.get("name")
        if not isinstance(name, str) or not valid_name(name):
            raise LoadError(
                "bad-name",
                f"{rule.name}: 'name' must be a target name, but was {shown(name)}",
                where=where.of("name"),
                hint='for example: name = "busybox"',
            )
        label = Label(package.name, name)
        for attribute, value in values.items():
            try:
                values[attribute] = self._runtime.plain(value)
            except TypeError as error:
                hint = "\n".join(f"call the function:  {name}()" for name in _functions_in(value))
                raise LoadError(
                    "bad-attribute", f"{label}: {attribute!r} {error}", where=where.of(attribute), hint=hint
                ) from error
        self._runtime.meter.charge(_LABEL_STEPS * _labels_in(rule, values))
        attributes, extra = check_attributes(rule, label, values, where)
        place = next((place for place in reversed(chain) if place[0] == package.file), chain[0])
        if rule.expand is None:
            _add(package, Target(label, rule, attributes, extra, self._places.location(place)), where)
            return
        for other, declared in rule.expand(label, values, where):
            own = Label(package.name, declared["name"])
            self._runtime.meter.charge(_LABEL_STEPS * (1 + len(declared)))
            attributes, extra = check_attributes(other, own, declared, where)
            _add(package, Target(own, other, attributes, extra, self._places.location(place)), where)

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
        chain = self._places.here(sys._getframe(2))
        where = text_of(chain)
        package = self._current("glob", self._places.location(chain[-1]))
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
                f"glob: no file of {shown_package(package.name)} matches {', '.join(map(repr, include)) or 'no pattern'}",
                where=where,
                hint="allow_empty = True if there may be none; files of a folder with its own BUILD.py are not in the package",
            )
        return list(names)

    def _installed_workers(self) -> list[str]:
        package = self._current("installed_workers", self._places.location(self._places.here(sys._getframe(2))[-1]))
        package.uses_plugins = True
        return sorted(self._workers())

    def _load(self, *_args: Any, **_names: Any) -> None:
        where = text_of(self._places.here(sys._getframe(2)))
        raise LoadError(
            "bad-load",
            f"{where.partition(':')[0]}: load is a statement, not a function",
            where=where,
            hint='write it at the top level, by itself:  load("//pkg:file.py", "name")',
        )

    def _bk_dep(self, *_args: Any, **_names: Any) -> None:
        where = text_of(self._places.here(sys._getframe(2)))
        file = where.partition(":")[0]
        hint = f'write it at the top level, by itself:  {FUNCTION}(name = "bk_tools")'
        raise LoadError("bad-module", f"{file}: {FUNCTION} is a statement, not a function", where=where, hint=hint)

    def _workspace(self, *, name: str, noplugins: list[str] | tuple[str, ...] = ()) -> None:
        where = self._places.location(self._places.here(sys._getframe(2))[-1])
        if not isinstance(name, str):
            raise LoadError(
                "bad-name", f"workspace: 'name' must be a string, but was {shown(name)}", where=where.of("name")
            )
        # The names are read by syntax, in `plugins.py`.
        if not isinstance(noplugins, list | tuple) or not all(isinstance(item, str) for item in noplugins):
            what = f"workspace: 'noplugins' must be a list of strings, but was {shown(noplugins)}"
            raise LoadError("bad-attribute", what, where=where.of("noplugins"))
        if self._package is not None:
            self._package.workspace = name


def _add(package: Package, target: Target, where: Location) -> None:
    """Add a target to a package. Raises LoadError for a second one of its name."""
    first = package.targets.get(target.label.name)
    if first is not None:
        message = f"{target.label}: declared twice"
        raise LoadError("duplicate-name", message, where=str(where), hint=f"the first one is at {first.location}")
    package.targets[target.label.name] = target


def _functions_in(value: Any) -> list[str]:
    """Return the names of the functions of build files that an attribute is, or is a list of."""
    return [one.name for one in (value if isinstance(value, list) else [value]) if isinstance(one, Function)]


def _labels_in(rule: Rule, values: Mapping[str, Any]) -> int:
    """Return the number of labels in the attributes of a target."""
    lists = (
        values.get(name) for name, attribute in rule.attributes.items() if attribute.kind in ("labels", "label_dict")
    )
    return sum(len(value) for value in lists if isinstance(value, list | tuple | dict))
