"""`glob`: the files of a package whose names match.

`*` and `?` match within a name, `**` any number of folders. Only a pattern with a leading dot matches a name that
begins with a dot. The search stays in its package: it enters no folder with a BUILD.py or a WORKSPACE.py, no symbolic
link to a folder, no folder that begins with a dot, no `__pycache__`, and not `bk-out`. Files outside of the workspace,
behind a link, do not match.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from bkrules.incremental.dependencies import current
from bkrules.loading.meter import shown
from bkrules.loading.root import MARKER

BUILD_FILE = "BUILD.py"
OUTPUT = "bk-out"
_LONGEST = 4_096
States = frozenset[tuple[int, int]]


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
    """The sorted names, and the folders that were searched; `links` when a symbolic link was met."""

    names: tuple[str, ...]
    folders: tuple[str, ...]
    links: bool


def search(root: str, glob: Glob, charge: Callable[[int], None] = lambda _steps: None) -> Found:
    """Search the workspace at `root` for a glob. `charge` is called with the steps of the search. Raises BadGlob."""
    charge(sum(map(len, (*glob.include, *glob.exclude))))
    include, exclude = _Patterns(glob.include), _Patterns(glob.exclude)
    names: list[str] = []
    folders: list[str] = []
    here, top = os.path.realpath(f"{root}/{glob.package}"), os.path.realpath(root)
    links = here != os.path.join(top, glob.package).rstrip("/")
    todo = [("", include.begin(), exclude.begin())] if glob.include and f"{here}/".startswith(f"{top}/") else []
    while todo:
        below, wanted, unwanted = todo.pop()
        folder = "/".join(filter(None, [glob.package, below]))
        entries = listing(current().note(f"{root}/{folder}"))
        charge(1 + len(entries) * (1 + (len(wanted) + len(unwanted) >> 3)))
        folders.append(folder)
        if below and any(entry.name in (BUILD_FILE, MARKER) for entry in entries):
            continue  # another package, or another workspace
        is_wanted, is_unwanted = include.files(wanted), exclude.files(unwanted)
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            links = links or entry.is_symlink()
            if entry.is_dir(follow_symlinks=False):
                hidden = (
                    entry.name.startswith(".") or entry.name == "__pycache__" or (folder, entry.name) == ("", OUTPUT)
                )
                inside = frozenset() if hidden else include.enter(wanted, entry.name)
                if inside:
                    todo.append((name, inside, exclude.enter(unwanted, entry.name)))
            elif is_wanted(entry.name) and not is_unwanted(entry.name) and _is_file(entry, root):
                names.append(name)
    if links:
        current().doubts.append("a glob met a link, whose target may come and go")
    return Found(tuple(sorted(names)), tuple(sorted(folders)), links)


class _Patterns:
    """The states of a search down the folders: a state is the number of matched parts of each pattern.

    All possible matches are followed at once, so no pattern is tried twice at the same place.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_parts(pattern) for pattern in patterns]

    def begin(self) -> States:
        """Return the states in the folder of the package."""
        return self._with_no_folder((number, 0) for number in range(len(self._patterns)))

    def enter(self, states: States, folder: str) -> States:
        """Return the states in a folder of the one with these states; empty when nothing in it can match."""
        inside = []
        for number, place in states:
            parts = self._patterns[number]
            if parts[place] == "**":
                inside += [(number, place)] if not folder.startswith(".") else []
            elif place + 1 < len(parts) and _matcher(frozenset([parts[place]]))(folder):
                inside.append((number, place + 1))
        return self._with_no_folder(inside)

    def files(self, states: States) -> Callable[[str], object]:
        """Return a function that decides whether a file of that name matches in a folder with these states."""
        ends = (self._patterns[number][place:] for number, place in states)
        return _matcher(frozenset(parts[0] for parts in ends if len(parts) == 1))

    def _with_no_folder(self, states: Iterable[tuple[int, int]]) -> States:
        """Add the states behind each `**`, which may match no folder at all."""
        closed = set(states)
        for number, place in list(closed):
            parts = self._patterns[number]
            if parts[place] == "**" and place + 1 < len(parts):
                closed.add((number, place + 1))
        return frozenset(closed)


def listing(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder; none when it no longer exists. Raises OSError when it cannot be read."""
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


def _parts(pattern: str) -> list[str]:
    """Return the parts of a pattern, one for each name. Raises BadGlob."""
    parts = pattern.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in pattern:
        raise BadGlob(f"{shown(pattern)} does not name files of the package; write 'folder/*.txt' or '**/*.txt'")
    if any("**" in part and part != "**" for part in parts):
        raise BadGlob(f"{shown(pattern)}: '**' stands for whole folders; write 'folder/**/*.txt'")
    if len(pattern) > _LONGEST:
        raise BadGlob(f"{shown(pattern)} is longer than the path of any file")
    return [part for number, part in enumerate(parts) if part != "**" or parts[number - 1 : number] != ["**"]]


@lru_cache(maxsize=512)
def _matcher(parts: frozenset[str]) -> Callable[[str], object]:
    """Return a function that decides whether a name matches one of these parts of patterns."""
    return re.compile("|".join(map(_part, sorted(parts))) or r"(?!)", re.DOTALL).fullmatch


def _part(part: str) -> str:
    """Return a regular expression for a part. Between two stars the first match suffices, so the expression never backtracks."""
    if part == "**":
        return r"(?!\.).+"
    first, *others = (
        "".join("." if character == "?" else re.escape(character) for character in text) for text in part.split("*")
    )
    hidden = r"(?!\.)" if part[0] in "*?" else ""
    middle = "".join(f"(?>.*?{text})" for text in others[:-1] if text)
    return hidden + first + middle + (f".*{others[-1]}" if others else "")
