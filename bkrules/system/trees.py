"""The files below a folder that its owner may edit at any time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

UNSEEN = frozenset({".bzr", ".git", ".hg", ".svn", ".venv", "bk-out"})
"""The folders that are in no listing: those of version control, of which Go embeds nothing, and those that bk itself writes to."""


MOST_FILES = 200_000
"""The limit of files below a folder."""


class TooManyFiles(Exception):
    """There are more than MOST_FILES files."""


class Listing(NamedTuple):
    """The regular files below a folder, and the symbolic links to folders with their targets: sorted, relative to it.

    A link to a regular file counts as that file. Links to folders are not followed.
    """

    files: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def list_files(top: str, seen: Callable[[str], object]) -> Listing:
    """Return the files below `top`. `seen` is called with each folder before it is read, and with each link that leads nowhere.

    Raises OSError when a folder cannot be read, and TooManyFiles.
    """
    files: list[str] = []
    links: list[tuple[str, str]] = []
    todo = [""]
    while todo:
        below = todo.pop()
        if len(files) > MOST_FILES:
            raise TooManyFiles
        folder = f"{top}/{below}"
        seen(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.name in UNSEEN:  # also a file: the .git of a worktree has the path of its repository
                    continue
                if entry.is_file():
                    files.append(path)
                elif not entry.is_dir():
                    seen(entry.path)
                elif entry.is_symlink():
                    links.append((path, os.readlink(entry.path)))
                else:
                    todo.append(f"{path}/")
    return Listing(tuple(sorted(files)), tuple(sorted(links)))
