"""`glob`: the files of a package whose names match.

`*` and `?` match within a name, `**` any number of folders. A name that begins with a dot is matched only by a pattern
that writes the dot. The search stays in its package: it enters no folder with a BUILD.py, no symbolic link to a folder,
none that begins with a dot, no `__pycache__`, and not `bk-out`. What a link shows of the world outside is not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bkrules.observed import doubt, note

BUILD_FILE = "BUILD.py"
OUTPUT = "bk-out"
_ENDLESS = 1_000


class BadGlob(ValueError):
    """A pattern that no file of a package can match."""


@dataclass(frozen=True, slots=True)
class Glob:
    """One use of `glob` in a package."""

    package: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The names, sorted, and the folders that were looked into; `links` when a symbolic link was met."""

    names: tuple[str, ...]
    folders: tuple[str, ...]
    links: bool


def search(root: str, glob: Glob) -> Found:
    """What `glob` means in the workspace at `root` now. Raises BadGlob."""
    include, exclude = _compile(glob.include), _compile(glob.exclude)
    depth = max((_ENDLESS if "**" in one else one.count("/") for one in glob.include), default=-1)
    names: list[str] = []
    folders: list[str] = []
    here, top = os.path.realpath(f"{root}/{glob.package}"), os.path.realpath(root)
    links = here != os.path.join(top, glob.package).rstrip("/")
    todo = [""] if depth >= 0 and f"{here}/".startswith(f"{top}/") else []
    while todo:
        below = todo.pop()
        folder = "/".join(filter(None, [glob.package, below]))
        entries = _entries(note(f"{root}/{folder}"))
        folders.append(folder)
        if below and any(entry.name == BUILD_FILE for entry in entries):
            continue  # another package
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            links = links or entry.is_symlink()
            if entry.is_dir(follow_symlinks=False):
                hidden = (
                    entry.name.startswith(".") or entry.name == "__pycache__" or (folder, entry.name) == ("", OUTPUT)
                )
                if not hidden and name.count("/") < depth:
                    todo.append(name)
            elif _is_file(entry, root) and include.fullmatch(name) and not exclude.fullmatch(name):
                names.append(name)
    if links:
        doubt("a glob met a link, whose target may come and go")
    return Found(tuple(sorted(names)), tuple(sorted(folders)), links)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_file(entry: os.DirEntry[str], root: str) -> bool:
    if not entry.is_symlink():
        return entry.is_file()
    inside = f"{os.path.realpath(entry.path)}/".startswith(f"{os.path.realpath(root)}/")
    return inside and os.path.isfile(entry.path)


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL)


def _expression(pattern: str) -> str:
    parts = pattern.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise BadGlob(f"{pattern!r} does not name files of the package; write 'folder/*.txt' or '**/*.txt'")
    if any("**" in part and part != "**" for part in parts):
        raise BadGlob(f"{pattern!r}: '**' stands for whole folders; write 'folder/**/*.txt'")
    expression = "".join(r"(?:[^./][^/]*/)*" if part == "**" else _part(part) + "/" for part in parts[:-1])
    return expression + (r"(?:[^./][^/]*/)*[^./][^/]*" if parts[-1] == "**" else _part(parts[-1]))


def _part(part: str) -> str:
    start = r"(?!\.)" if part[0] in "*?" else ""
    return start + "".join({"*": "[^/]*", "?": "[^/]"}.get(one, re.escape(one)) for one in part)
