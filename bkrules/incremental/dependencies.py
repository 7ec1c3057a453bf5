"""The dependencies of an answer: every file and folder on which it depends, whether it exists or not.

A build keeps the list with the stamp of each (`null_build.py`, `up_to_date.py`), so that the next build need not repeat
work whose dependencies are unchanged. Code notes a file here before it reads the file. The stamp is that of the first
look, so a file that changes during the build has another stamp when the next build checks. While a package is loaded,
analysed or looked up, all notes are dependencies of that package. Notes outside of a package, and those of
`note_for_all`, are dependencies of the whole answer. A package that uses another depends on all dependencies of that
package.

One process gives one answer, and Python's import system and caches belong to the process. So `current()` is the object
to which code notes, and a function that reads a file needs no parameter for it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from typing import Any

from bkrules.incremental import stamps
from bkrules.incremental.stamps import Stamp

WALK = "..."
"""The name under which the search for packages notes its files. They belong to no package, since each build searches again.
"""


class _Scope(threading.local):
    """The package for which this thread notes files, and its list of notes."""

    def __init__(self, for_all: dict[str, None]) -> None:
        self.package: str | None = None
        self.paths = for_all


class Dependencies:
    """The dependencies of one answer, with the stamp of each at the first look."""

    def __init__(self) -> None:
        self.for_all: dict[str, None] = {}
        """The dependencies of the whole answer, in order."""
        self.packages: dict[str, dict[str, None]] = {}
        """The dependencies of each package, in order."""
        self.doubts: list[str] = []
        """Why `stat` cannot tell whether the answer still holds, for developers who debug bk."""
        self._uses: dict[str, set[str]] = {}
        self._looks: dict[str, Stamp | None] = {}
        self._stores: dict[str, Stamp | None] = {}
        self._scope = _Scope(self.for_all)

    def note(self, path: str) -> str:
        """Note that the answer depends on `path`, whether it exists or not, and return the path. Call this before reading
        the file.
        """
        if path not in self._looks:
            self._looks.setdefault(path, stamps.of(path))
        self._scope.paths[path] = None
        return path

    def look(self, path: str) -> Stamp | None:
        """Note `path`, and return its current stamp."""
        stamp = stamps.of(path)
        self._looks.setdefault(path, stamp)
        self._scope.paths[path] = None
        return stamp

    def note_for_all(self, path: str) -> str:
        """Note `path` for the whole answer. For answers that this process remembers, since later callers do not look at
        `path` again.
        """
        if path not in self._looks:
            self._looks.setdefault(path, stamps.of(path))
        self.for_all[path] = None
        return path

    def note_stored(self, path: str) -> str:
        """Note an entry of a store, whose name never changes its meaning. The stamp of its folder may vouch for it."""
        self.look_stored(path)
        return path

    def look_stored(self, path: str) -> Stamp | None:
        """Note an entry of a store as `note_stored` does, and return its current stamp."""
        folder = path[: path.rindex("/") + 1]
        if folder not in self._stores:
            self._stores.setdefault(folder, stamps.of(folder))
        return self.look(path)

    def note_code(self) -> None:
        """Note the code of this process: its modules, and the folders and files by which Python finds modules and plugins.

        Call this early: later imports are noted before they are read. Call it once more at the end for files that are not
        Python.
        """
        if SourceFileLoader.path_stats is not _path_stats:
            SourceFileLoader.path_stats = _path_stats  # type: ignore[method-assign, assignment]
        files = [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
        for path in (*files, *dict.fromkeys(path.rpartition("/")[0] for path in files), f"{sys.prefix}/pyvenv.cfg"):
            self.note_for_all(path)
        for folder in sys.path:
            for name in _names(self.note_for_all(folder)):
                if name.endswith(".pth"):
                    self.note_for_all(f"{folder}/{name}")
                elif name.endswith((".dist-info", ".egg-info")):
                    for part in ("METADATA", "PKG-INFO", "entry_points.txt"):
                        self.note_for_all(f"{folder}/{name}/{part}")

    def of_package(self, name: str) -> _OfPackage:
        """Return a context in which this thread notes dependencies of one package."""
        return _OfPackage(self._scope, name, self.packages.setdefault(name, {}))

    @property
    def package(self) -> str | None:
        """The package whose dependencies this thread notes; None for those of the whole answer."""
        return self._scope.package

    def use(self, name: str) -> None:
        """Note that the package of this thread depends on another one."""
        package = self._scope.package
        if package is not None and package != name:
            self._uses.setdefault(package, set()).add(name)

    def used_by(self, name: str) -> set[str]:
        """Return the packages that a package depends on."""
        return self._uses.get(name, set())

    def first(self, path: str) -> Stamp | None:
        """Return the stamp of a path at the first look, which may be now; None when nothing existed there."""
        if path not in self._looks:
            self._looks.setdefault(path, stamps.of(path))
        return self._looks[path]

    def first_of_store(self, folder: str) -> Stamp | None:
        """Return the stamp of a store's folder, which ends in a slash, from before the first look into it, which may be now."""
        return self._stores[folder] if folder in self._stores else stamps.of(folder)


class _OfPackage:
    """See `Dependencies.of_package`. A build enters one for each action, so this is no generator."""

    __slots__ = ("_before", "_name", "_paths", "_scope")

    def __init__(self, scope: _Scope, name: str, paths: dict[str, None]) -> None:
        self._scope, self._name, self._paths = scope, name, paths

    def __enter__(self) -> None:
        scope = self._scope
        self._before = scope.package, scope.paths
        scope.package, scope.paths = self._name, self._paths

    def __exit__(self, *_: object) -> None:
        self._scope.package, self._scope.paths = self._before


_current = Dependencies()


def current() -> Dependencies:
    """Return the dependencies of the answer that this process works on."""
    return _current


@contextmanager
def separate() -> Iterator[Dependencies]:
    """Make new dependencies the current ones, for as long as the context lasts."""
    global _current
    before, _current = _current, Dependencies()
    try:
        yield _current
    finally:
        _current = before


_real_path_stats = SourceFileLoader.path_stats


def _path_stats(loader: SourceFileLoader, path: str) -> Mapping[str, Any]:
    """Note a module before the import system reads it."""
    return _real_path_stats(loader, current().note_for_all(path))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
