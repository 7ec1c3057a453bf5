"""What this process has looked at: every file and folder on which its answer depends, whether it was there or not.

A build keeps the list with what `stat` says of each (`unchanged.py`, `settled.py`), so that the next one need not work out again
what is as it was. Who looks at a file notes it here. While a package is loaded, analysed or looked up, what is noted is the
package's; what is noted otherwise, or by `note_for_all`, the whole answer depends on. A package that asks for another depends on
all that that one depends on.
"""

from __future__ import annotations

import threading

WALK = "..."
"""As the name of a package: what the search for packages looks at. It is no package's, since each build searches again."""

_for_all: dict[str, None] = {}
_packages: dict[str, dict[str, None]] = {}
_uses: dict[str, set[str]] = {}
_doubts: list[str] = []


class _Scope(threading.local):
    """For which package this thread looks at files, and where it notes them."""

    package: str | None = None
    paths = _for_all


_scope = _Scope()


def note(path: str) -> str:
    """Note that the answer depends on what is at `path`, or on there being nothing; the path itself."""
    _scope.paths[path] = None
    return path


def note_for_all(path: str) -> str:
    """The same for an answer that is remembered, so that who asks again does not look at `path` again."""
    _for_all[path] = None
    return path


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
    """Whether it was noted that `stat` cannot tell."""
    return bool(_doubts)


def noted() -> list[str]:
    """All that the whole answer depends on, in order."""
    return list(_for_all)


def noted_of() -> dict[str, dict[str, None]]:
    """What was noted for each package."""
    return _packages


def used_by(name: str) -> set[str]:
    """The packages that a package depends on."""
    return _uses.get(name, set())
