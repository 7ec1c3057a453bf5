"""The files of a plugin that act in a cell: those of its worker's modules, and of all their imports.

Imports are followed by syntax, also inside functions. A package counts as a whole, with its data, as Python installs
it, so the key covers all that a module may read of its package. Other parts of the key cover the standard library, bk,
and the installed packages of the locked environment that are not plugins.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import distribution, packages_distributions
from importlib.util import decode_source, find_spec
from typing import NamedTuple

from bkrules.analysis.matrix import imports
from bkrules.incremental.dependencies import current
from bkrules.plugin import ask
from bkrules.plugin.spec import GROUP
from bkrules.plugin.worker import Worker
from bkrules.system.files import read_regular

_COMPILED = "__pycache__"
_ELSEWHERE = sys.stdlib_module_names | {"bkrules", "__main__"}


class _Unit(NamedTuple):
    """A unit of imports: a module, or a package with all its files. `path` is its place below the import path."""

    path: str
    place: str
    is_package: bool


def plugin_files(worker: Worker, plugins: Iterable[str] = ()) -> dict[str, str]:
    """Return the files of a worker's code and of these plugin modules, by their paths below the folder on Python's path.

    Raises WorkerFault when `modules()` returns anything but modules, or omits the worker's own module.
    """
    files = code_files((*ask.modules(worker), *plugins))
    own = type(worker).__module__
    if _file_of(own) not in files.values():
        what = f"its modules() leaves out {own}, the module of the worker itself"
        raise ask.fault(type(worker), what, "return (*super().modules(), ...) from it")
    return files


def code_files(modules: Iterable[str]) -> dict[str, str]:
    """Return the files of these modules, and of all that they import, by their paths below the folder on Python's path."""
    files: dict[str, str] = {}
    seen: set[str] = set()
    units: set[_Unit] = set()
    waiting = [(name, True) for name in modules]
    while waiting:
        name, is_named = waiting.pop()
        unit = None if name in seen else _unit(name)
        seen.add(name)
        if unit is None or unit in units or (not is_named and _is_locked(unit)):
            continue
        units.add(unit)
        for path, file in _files(unit):
            files[path] = file
            waiting += [(imported, False) for imported in _imported(path, file)]
    return dict(sorted(files.items()))


def _file_of(module: str) -> str:
    return getattr(sys.modules[module], "__file__", None) or ""


def _unit(name: str) -> _Unit | None:
    """Return the module or the outermost package that `import name` reads; None when another part of the key covers it.

    A namespace package has no owner, so the imported part of it counts. Nothing is imported here.
    """
    parts = name.split(".")
    if parts[0] in _ELSEWHERE:
        return None
    spec: ModuleSpec | None
    try:
        spec = find_spec(parts[0])
    except (ImportError, ValueError):  # it is loaded and has no spec: no import by its name finds it
        return None
    for number in range(1, len(parts) + 1):
        if spec is None:
            return None
        if spec.has_location and spec.origin:
            return _unit_at(
                "/".join(parts[:number]), spec.origin, is_package=spec.submodule_search_locations is not None
            )
        folders = [current().note_for_all(folder) for folder in spec.submodule_search_locations or ()]
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), folders)
    return None


def _unit_at(path: str, origin: str, *, is_package: bool) -> _Unit:
    if is_package:
        return _Unit(path, os.path.dirname(origin), True)
    suffix = os.path.basename(origin).partition(".")[2]
    return _Unit(f"{path}.{suffix}", origin, False)


def _is_locked(unit: _Unit) -> bool:
    """Return whether a unit belongs to an installed distribution that is not a plugin: the key has the digests of its files."""
    folders = {f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")}
    if not unit.place.startswith(tuple(folders)):
        return False
    owners = _owners().get(unit.path.partition("/")[0].partition(".")[0], ())
    return bool(owners) and not any(distribution(name).entry_points.select(group=GROUP) for name in owners)


@functools.cache
def _owners() -> dict[str, list[str]]:
    """Return the distributions with each name on Python's path. This reads the files of all distributions."""
    return dict(packages_distributions())


def _files(unit: _Unit) -> Iterator[tuple[str, str]]:
    """Yield the files of a unit, each with its path below the import path."""
    if not unit.is_package:
        yield unit.path, unit.place
        return
    for folder, names, files in os.walk(current().note_for_all(unit.place)):
        names[:] = sorted(name for name in names if name != _COMPILED)
        inner = folder.removeprefix(unit.place)
        for name in names:
            current().note_for_all(f"{folder}/{name}")
        for name in files:
            if os.path.isfile(f"{folder}/{name}") and not name.endswith(".pyc"):
                yield f"{unit.path}{inner}/{name}", f"{folder}/{name}"


def _imported(path: str, file: str) -> Iterator[str]:
    """Yield the names of the modules that a file imports by syntax; none when Python cannot parse the file."""
    if not path.endswith(".py"):
        return
    try:
        imported = imports(
            decode_source(read_regular(current().note_for_all(file))), package=path.endswith("/__init__.py")
        )
    except (SyntaxError, UnicodeDecodeError):  # such as a template; its import would fail
        return
    folders = path.split("/")[:-1]
    for level, name in imported:
        above = folders[: len(folders) - level + 1] if level else []
        yield ".".join([*above, *filter(None, [name])])
