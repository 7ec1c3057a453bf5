"""Hints about files of the workspace that a test did not find, since its cell lacks them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SOURCES = "src/"
"""The prefix of the names of inputs that are files of the workspace."""

_ROOT = "/src"


def hint_of(missing: Iterable[str], module: str, root: Path, inputs: Iterable[str]) -> str:
    """Return a hint about modules and files that a test did not find; empty when none of them is in the workspace.

    `module` is the path of the file of tests in the workspace at `root`, and `inputs` are the inputs of the action that
    ran it, by name.
    """
    files = dict.fromkeys(path for name in missing for path in _paths(name, module) if _is_file(root, path))
    seen = {path.removeprefix(SOURCES) for path in inputs if path.startswith(SOURCES)}
    if absent := [path for path in files if path not in seen]:
        what = f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} in the workspace and not in the cell"
        return f"{what}: name {'it' if len(absent) == 1 else 'them'} in the attribute 'data'"
    for path in files:
        if path.endswith(".py"):
            name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            return f"{path} is in the cell, but its folder is not on Python's path: import {name}, or set 'pythonpath' for pytest"
    return ""


def _paths(name: str, module: str) -> Iterable[str]:
    """Return the paths below the workspace that a name may stand for: of a module, or of a file in the test's spelling."""
    if "/" in name or not all(map(str.isidentifier, name.split("."))):
        path = os.path.normpath(f"{_ROOT}/{name}" if not name.startswith("/") else name)
        yield os.path.relpath(path, _ROOT)
        return
    folder = os.path.dirname(module)
    while True:
        start = f"{folder}/{name.replace('.', '/')}".lstrip("/")
        yield from (f"{start}.py", f"{start}/__init__.py")
        if not folder:
            break
        folder = os.path.dirname(folder)
    yield name  # a file without a suffix


def _is_file(root: Path, path: str) -> bool:
    return not path.startswith("..") and (root / path).is_file()
