"""What this process has looked at: every file and folder on which its answer depends, whether it was there or not.

A build keeps the list with the stamp of each (`null_build.py`, `up_to_date.py`), so that the next one need not work out again
what is as it was. Who looks at a file notes it here, before it is read: the stamp is that of the first look, so a file that
changes while the build goes on has another one when the next build asks. While a package is loaded, analysed or looked up, what
is noted is the package's; what is noted otherwise, or by `note_for_all`, the whole answer depends on. A package that asks for
another depends on all that that one depends on.
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
"""As the name of a package: what the search for packages looks at. It is no package's, since each build searches again."""

_for_all: dict[str, None] = {}
_packages: dict[str, dict[str, None]] = {}
_uses: dict[str, set[str]] = {}
_doubts: list[str] = []
_looks: dict[str, Stamp | None] = {}
_stores: dict[str, Stamp | None] = {}


class _Scope(threading.local):
    """For which package this thread looks at files, and where it notes them."""

    package: str | None = None
    paths = _for_all


_scope = _Scope()


def note(path: str) -> str:
    """Note that the answer depends on what is at `path`, or on there being nothing; the path itself. Note it before reading it."""
    if path not in _looks:
        _looks.setdefault(path, stamps.of(path))
    _scope.paths[path] = None
    return path


def look(path: str) -> Stamp | None:
    """Note `path`, and return its stamp of now."""
    found = stamps.of(path)
    _looks.setdefault(path, found)
    _scope.paths[path] = None
    return found


def note_for_all(path: str) -> str:
    """Return the same as `note`, for an answer that is remembered, so that who asks again does not look at `path` again."""
    if path not in _looks:
        _looks.setdefault(path, stamps.of(path))
    _for_all[path] = None
    return path


def note_stored(path: str) -> str:
    """Return the same as `note`, for an entry of a store, whose name never changes its meaning: its folder may vouch for it."""
    look_stored(path)
    return path


def look_stored(path: str) -> Stamp | None:
    """Return the same as `note_stored`; the stamp of now."""
    folder = path[: path.rindex("/") + 1]
    if folder not in _stores:
        _stores.setdefault(folder, stamps.of(folder))
    return look(path)


def note_code() -> None:
    """Note the code of this process: its modules, and the folders and files by which Python finds modules and plugins.

    Call it early: what is imported from then on is noted before it is read. Call it once more at the end for what is no Python.
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
    """What the import system asks of a module's file before it reads it."""
    return _real_path_stats(loader, note_for_all(path))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


class NotedFor:
    """What this thread notes meanwhile is what the answer for this package depends on."""

    __slots__ = ("_before", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = _scope.package, _scope.paths
        _scope.package, _scope.paths = self._name, _packages.setdefault(self._name, {})

    def __exit__(self, *_: object) -> None:
        _scope.package, _scope.paths = self._before


def use(name: str) -> None:
    """Note that the package of which something is noted now depends on another one."""
    package = _scope.package
    if package is not None and package != name:
        _uses.setdefault(package, set()).add(name)


def doubt(why: str) -> None:
    """Note that `stat` cannot tell whether the answer still holds; the reason is for who reads the code in a debugger."""
    _doubts.append(why)


def is_in_doubt() -> bool:
    """Return whether it was noted that `stat` cannot tell."""
    return bool(_doubts)


def noted() -> list[str]:
    """Return all that the whole answer depends on, in order."""
    return list(_for_all)


def noted_of() -> dict[str, dict[str, None]]:
    """What was noted for each package."""
    return _packages


def used_by(name: str) -> set[str]:
    """Return the packages that a package depends on."""
    return _uses.get(name, set())


def first(path: str) -> Stamp | None:
    """Return the stamp that a path had when it was first looked at, which may be now; None when nothing was there."""
    if path not in _looks:
        _looks.setdefault(path, stamps.of(path))
    return _looks[path]


def first_of_store(folder: str) -> Stamp | None:
    """Return the stamp of a folder of a store, which ends in a slash, from before the first look into it, which may be now."""
    return _stores[folder] if folder in _stores else stamps.of(folder)
