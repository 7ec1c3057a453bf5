"""The dependencies of this process: every file and folder on which its answer depends, whether it exists or not.

A build keeps the list with the stamp of each (`null_build.py`, `up_to_date.py`), so that the next build need not repeat
work whose dependencies are unchanged. Code notes a file here before it reads the file. The stamp is that of the first
look, so a file that changes during the build has another stamp when the next build checks. While a package is loaded,
analysed or looked up, all notes are dependencies of that package. Notes outside of a package, and those of
`note_for_all`, are dependencies of the whole answer. A package that uses another depends on all dependencies of that
package.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from typing import Any

from bkrules.incremental import stamps
from bkrules.incremental.stamps import Stamp

WALK = "..."
"""The name under which the search for packages notes its files. They belong to no package, since each build searches again.
"""

_for_all: dict[str, None] = {}
_packages: dict[str, dict[str, None]] = {}
_uses: dict[str, set[str]] = {}
_doubts: list[str] = []
_looks: dict[str, Stamp | None] = {}
_stores: dict[str, Stamp | None] = {}


class _Scope(threading.local):
    """The package for which this thread notes files, and its list of notes."""

    package: str | None = None
    paths = _for_all


_scope = _Scope()


def note(path: str) -> str:
    """Note that the answer depends on `path`, whether it exists or not, and return the path. Call this before reading
    the file.
    """
    if path not in _looks:
        _looks.setdefault(path, stamps.of(path))
    _scope.paths[path] = None
    return path


def look(path: str) -> Stamp | None:
    """Note `path`, and return its current stamp."""
    found = stamps.of(path)
    _looks.setdefault(path, found)
    _scope.paths[path] = None
    return found


def note_for_all(path: str) -> str:
    """Note `path` for the whole answer. For answers that this process remembers, since later callers do not look at
    `path` again.
    """
    if path not in _looks:
        _looks.setdefault(path, stamps.of(path))
    _for_all[path] = None
    return path


def note_stored(path: str) -> str:
    """Note an entry of a store, whose name never changes its meaning. The stamp of its folder may vouch for it."""
    look_stored(path)
    return path


def look_stored(path: str) -> Stamp | None:
    """Note an entry of a store as `note_stored` does, and return its current stamp."""
    folder = path[: path.rindex("/") + 1]
    if folder not in _stores:
        _stores.setdefault(folder, stamps.of(folder))
    return look(path)


def note_code() -> None:
    """Note the code of this process: its modules, and the folders and files by which Python finds modules and plugins.

    Call this early: later imports are noted before they are read. Call it once more at the end for files that are not
    Python.
    """
    if SourceFileLoader.path_stats is not _path_stats:
        SourceFileLoader.path_stats = _path_stats  # type: ignore[method-assign, assignment]
    files = [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    for path in (*files, *dict.fromkeys(path.rpartition("/")[0] for path in files), f"{sys.prefix}/pyvenv.cfg"):
        note_for_all(path)
    for folder in sys.path:
        for name in _names(note_for_all(folder)):
            if name.endswith(".pth"):
                note_for_all(f"{folder}/{name}")
            elif name.endswith((".dist-info", ".egg-info")):
                for part in ("METADATA", "PKG-INFO", "entry_points.txt"):
                    note_for_all(f"{folder}/{name}/{part}")


_real_path_stats = SourceFileLoader.path_stats


def _path_stats(loader: SourceFileLoader, path: str) -> Mapping[str, Any]:
    """Yield the files that the import system looks at before it reads a module."""
    return _real_path_stats(loader, note_for_all(path))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


class NotedFor:
    """A context in which this thread notes dependencies of one package."""

    __slots__ = ("_before", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = _scope.package, _scope.paths
        _scope.package, _scope.paths = self._name, _packages.setdefault(self._name, {})

    def __exit__(self, *_: object) -> None:
        _scope.package, _scope.paths = self._before


def use(name: str) -> None:
    """Note that the current package depends on another one."""
    package = _scope.package
    if package is not None and package != name:
        _uses.setdefault(package, set()).add(name)


def doubt(why: str) -> None:
    """Note that `stat` cannot tell whether the answer still holds; the reason is for developers who debug bk."""
    _doubts.append(why)


def is_in_doubt() -> bool:
    """Return whether `doubt` was called."""
    return bool(_doubts)


def noted() -> list[str]:
    """Return all dependencies of the whole answer, in order."""
    return list(_for_all)


def noted_of() -> dict[str, dict[str, None]]:
    """Return the dependencies of each package."""
    return _packages


def used_by(name: str) -> set[str]:
    """Return the packages that a package depends on."""
    return _uses.get(name, set())


def first(path: str) -> Stamp | None:
    """Return the stamp of a path at the first look, which may be now; None when nothing existed there."""
    if path not in _looks:
        _looks.setdefault(path, stamps.of(path))
    return _looks[path]


def first_of_store(folder: str) -> Stamp | None:
    """Return the stamp of a store's folder, which ends in a slash, from before the first look into it, which may be now."""
    return _stores[folder] if folder in _stores else stamps.of(folder)
