"""Modules: the folders of other repositories whose build files a workspace uses, under the labels `@name//package:target`.

A module is an installed distribution with a WORKSPACE.py in it, found by an entry point in the group `bkrules.modules`, or a folder
that `--override_module` names. Nothing of it is imported. The paths of its files begin with `@name/`; only `place` knows
where they are, so nothing else depends on that.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import Distribution, distributions
from typing import NamedTuple

from bkrules.errors import LoadError, UsageError, did_you_mean
from bkrules.incremental.dependencies import current
from bkrules.loading.glob import Found, Glob, search
from bkrules.loading.root import MARKER
from bkrules.model.label import is_module, module_of

GROUP = "bkrules.modules"
OPTION = "--override_module"
FUNCTION = "bk_dep"

_overrides: dict[str, str] = {}


def override(folders: Mapping[str, str]) -> None:
    """Use these folders, by their absolute paths, in place of installed modules, in this process."""
    _overrides.clear()
    _overrides.update(folders)


class Installed(NamedTuple):
    """A module of a distribution: `value` is the import package with its build files, or a folder in one, `package.folder`."""

    distribution: str
    value: str


class Named(NamedTuple):
    """A module as a WORKSPACE.py names it: the line, and its folder in the workspace, which is empty for one from elsewhere."""

    line: int
    path: str = ""


class Modules:
    """The modules of the workspace at `root`. `names` returns those that a module names; '' is the workspace, called `own()`."""

    def __init__(
        self, root: str, names: Callable[[str], Mapping[str, Named]] = lambda _: {}, own: Callable[[], str] = lambda: ""
    ) -> None:
        self._root = root
        self._names = names
        self._own = own
        self._folders: dict[str, str] = {}

    def place(self, path: str) -> str:
        """Return the absolute path of a file by its path in the workspace. Raises LoadError for a module that is not here."""
        module = module_of(path)
        if not module:
            return f"{self._root}/{path}"
        below = path[len(module) + 2 :]
        return f"{self.folder(module)}/{below}" if below else self.folder(module)

    def folder(self, module: str) -> str:
        """Return the folder of a module. Raises LoadError when it is not installed."""
        if module not in self._folders:
            self._folders[module] = self._found(module)
        return self._folders[module]

    def _found(self, module: str) -> str:
        if module == self._own():
            return self._root
        if module in _overrides:
            return _checked(_overrides[module], module, f"{OPTION}={module}={_overrides[module]}")
        named = self._names("").get(module)
        if named is not None and named.path:
            return _checked(f"{self._root}/{named.path}", module, f"{MARKER}:{named.line}")
        installed = installed_modules().get(module, [])
        if not installed:
            name = module.replace("_", "-")
            raise LoadError(
                "module-not-installed",
                f"the module {module!r} is not installed",
                hint=f"by its name it comes with the distribution {name}; or name a folder with it:  {OPTION}={module}=PATH\n"
                f"{did_you_mean(module, installed_modules(), 'installed modules')}",
            )
        if len(installed) > 1:
            owners = " and ".join(sorted(one.distribution for one in installed))
            raise LoadError(
                "duplicate-module",
                f"two distributions have a module {module!r}: {owners}",
                hint=f"remove one of them, or choose a folder:  {OPTION}={module}=PATH",
            )
        return _checked(_located(installed[0].value), module, f"the distribution {installed[0].distribution}")

    def check(self, path: str, by: str) -> None:
        """Check that a file may be used by another one, each by its path. Raises LoadError for a module that `by` does not name."""
        module, user = module_of(path), module_of(by)
        if module == user:
            return
        named = self._names(user)
        if module not in named and (user or module != self._own()):
            file = f"@{user}/{MARKER}" if user else MARKER
            what = f"{file} names no module {module!r}"
            is_here = module in installed_modules().keys() | _overrides.keys()
            near = "" if is_here else did_you_mean(module, named, "modules that it names")
            add = f"add to it:  {FUNCTION}(name = {module!r})"
            hint = add if is_here else near if near.startswith("did you mean") else f"{near}\n{add}"
            raise LoadError("unknown-module", what, hint=hint)

    def check_overrides(self) -> None:
        """Raise UsageError for a folder in place of a module that neither the workspace nor a module of it names, and that is not
        installed.
        """
        if not _overrides:
            return
        here = installed_modules().keys() | _overrides.keys()
        todo = list(self._names(""))
        named = {*installed_modules(), *todo}
        while todo and not named.issuperset(_overrides):
            module = todo.pop()
            more = self._names(module).keys() - named if module in here else set()
            named |= more
            todo += more
        for name in sorted(_overrides.keys() - named):
            hint = did_you_mean(name, named, "modules")
            raise UsageError(
                "unused-override", f"{OPTION}={name}={_overrides[name]}: nothing uses that module", hint=hint
            )

    def inside(self, path: str) -> bool:
        """Return whether a path stays in its module, or in the workspace, symbolic links followed."""
        module = module_of(path)
        root = os.path.realpath(self.folder(module) if module else self._root)
        return os.path.realpath(self.place(path)).startswith(f"{root}/")

    def is_file(self, path: str) -> bool:
        """Return whether there is such a file, which a link of a module does not lead out of it."""
        return os.path.isfile(current().note(self.place(path))) and (not module_of(path) or self.inside(path))

    def find(self, glob: Glob, charge: Callable[[int], None] = lambda _steps: None) -> Found:
        """Return what a glob finds, with the folders by their paths in the workspace. Raises BadGlob."""
        module = module_of(glob.package)
        if not module:
            return search(self._root, glob, charge)
        below = glob.package[len(module) + 2 :]
        found = search(self.folder(module), replace(glob, package=below), charge)
        return replace(found, folders=tuple(f"@{module}/{folder}".rstrip("/") for folder in found.folders))


def named_by(statement: ast.stmt, functions: set[str], file: str) -> tuple[str, Named] | None:
    """Return the module that a statement names by a call of one of `functions`. Raises LoadError."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in functions:
        return None
    where = f"{file}:{call.lineno}"
    values = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    is_written_out = len(values) == len(call.keywords) and all(isinstance(value, str) for value in values.values())
    if call.args or "name" not in values or not values.keys() <= {"name", "path"} or not is_written_out:
        what = f"{file}: {FUNCTION} takes the name of a module, and perhaps its 'path', both written out"
        raise LoadError("bad-module", what, where=where, hint=f'write  {FUNCTION}(name = "bk_tools")')
    name, path = str(values["name"]), str(values.get("path", ""))
    if not is_module(name):
        what = f"{file}: {name!r} is no name of a module"
        raise LoadError("bad-module", what, where=where, hint="letters, digits and _, as in 'bk_tools'")
    if "path" in values and (path != os.path.normpath(path) or path.startswith(("/", ".")) or "\0" in path):
        what = f"{file}: {path!r} is no folder of the workspace"
        raise LoadError("bad-module", what, where=where, hint=f"for a folder elsewhere:  {OPTION}={name}=PATH")
    return name, Named(call.lineno, path)


def _checked(folder: str, module: str, origin: str) -> str:
    """Return the folder of a module. Raises LoadError when it has no WORKSPACE.py."""
    if not os.path.isfile(current().note_for_all(f"{folder}/{MARKER}")):
        is_folder = os.path.isdir(folder)
        what = f"has no {MARKER}" if is_folder else "is no folder"
        hint = f"a module is a folder with a {MARKER}, which calls workspace(name = {module!r})"
        raise LoadError("bad-module", f"{origin}: {folder or 'its package'} {what}", hint=hint)
    return folder


def _located(value: str) -> str:
    """Return the folder of an import package, or of a folder in it, without importing it; empty when there is none."""
    top, *below = value.partition(":")[0].strip().split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ""
    places = spec.submodule_search_locations if spec is not None else None
    return os.path.join(os.path.abspath(next(iter(places))), *below) if places else ""


@functools.lru_cache(maxsize=1)
def installed_modules() -> dict[str, list[Installed]]:
    """Return the modules of all installed distributions, by name. The first distribution of a name on the import path counts."""
    found: dict[str, list[Installed]] = {}
    seen: set[str] = set()
    for one in distributions():
        points = dict(_points(one))
        if points:
            name = str(one.metadata["Name"])
            if name not in seen:
                seen.add(name)
                for module, value in points.items():
                    found.setdefault(module, []).append(Installed(name, value))
    return found


def _points(distribution: Distribution) -> Iterator[tuple[str, str]]:
    """Yield the entry points of the group; none when they cannot be read."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if GROUP in text:
            yield from ((point.name, point.value) for point in distribution.entry_points.select(group=GROUP))
    except (OSError, ValueError):
        return
