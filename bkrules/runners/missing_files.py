"""Hints about files of the workspace and images that a test did not find, since its cell lacks them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

SOURCES = "src/"
"""The prefix of the names of inputs that are files of the workspace."""

_ROOT = "/src"
_IMAGES = "mirror/"
"""The prefix of the names of inputs that are images of the mirror."""

_MOST = 3
"""The most images that a hint names."""

_UNRESOLVED = re.compile(r"failed to resolve source metadata for ([^\s@]+): ")
"""BuildKit's words about an image that it did not find, unless its digest is pinned."""


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


def image_hint_of(reason: str, inputs: Iterable[str]) -> str:
    """Return a hint about the image that a build did not find, by the reason of the failure; empty when the mirror has it.

    `inputs` are the inputs of the action that ran the test, by name.
    """
    found = _UNRESOLVED.search(reason)
    places = [path.removeprefix(_IMAGES).rpartition("/") for path in inputs if path.startswith(_IMAGES)]
    images = {f"{repository}:{tag}": repository for repository, _, tag in places}
    if found is None or found[1] in images:
        return ""
    repository = found[1].rpartition(":")[0]
    names = {one: os.path.basename(one) for one in images.values()}
    near = difflib.get_close_matches(os.path.basename(repository), set(names.values()), n=1)
    like = [image for image, one in images.items() if near and names[one] == near[0]]
    what = f"did you mean {' or '.join(sorted(like)[:_MOST])}?" if like else "name it in 'images' of that image_mirror"
    return f"the mirror of the matrix has no {found[1]}: {what}"


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
