"""A user's own build in a cell: the words of buildctl, and its local folders, each of which is a tar archive."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bkrules.model.wire import Wire
from bkrules.testing.pytest_text import OWN_TEST, ROOT

TEST = OWN_TEST
"""The test of a cell, below the root of its tests."""
REQUEST = ".bk/own_build.json"
"""The request of a cell, next to its test."""
LOG = "build.log"
"""The output of buildctl, among the logs of a cell."""
MOST_WORDS, LONGEST_WORD = 10_000, 100_000
"""The limits of the words of a command, and of the characters of each."""
_ARCHIVES = ".bk/local"


def archive_of(name: str) -> str:
    """Return the path of the archive of a local folder, below the root of a cell's tests."""
    return f"{_ARCHIVES}/{name}.tar"


def folder_of(name: str) -> str:
    """Return the path of a local folder in a cell."""
    return f"{ROOT}/local/{name}"


def _is_command(words: tuple[str, ...]) -> bool:
    return 0 < len(words) <= MOST_WORDS and max(map(len, words)) <= LONGEST_WORD and not any("\0" in x for x in words)


def _are_names(names: tuple[str, ...]) -> bool:
    return all(name.isprintable() and "/" not in name and not name.startswith(".") and name for name in names)


@dataclass(frozen=True)
class OwnBuild(Wire):
    """A build: the `words` of buildctl, and the names of its local `folders`."""

    words: Annotated[tuple[str, ...], _is_command]
    folders: Annotated[tuple[str, ...], _are_names] = ()


def read_build(data: bytes) -> OwnBuild:
    """Return the build in the bytes of an untrusted request. Raises ValueError."""
    try:
        return OwnBuild.parse(json.loads(data))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a local folder with the modes and times of its files. Raises ValueError for a member that leads out of it."""
    folder.mkdir(parents=True)
    root = os.path.realpath(folder)
    folders: list[tuple[str, tarfile.TarInfo]] = []
    with tarfile.open(archive) as tar:
        for member in tar:
            place = os.path.join(root, member.name)
            parent = os.path.dirname(place)
            if os.path.realpath(parent) != parent or not f"{parent}/".startswith(f"{root}/"):
                raise ValueError(f"{member.name!r} leads out of its folder")
            if member.issym():
                os.symlink(member.linkname, place)
            elif member.isdir():
                os.mkdir(place)
                folders.append((place, member))
            elif member.isreg() and (file := tar.extractfile(member)) is not None:
                with file, open(place, "xb") as to:
                    shutil.copyfileobj(file, to)
                _finish(place, member)
            else:
                raise ValueError(f"{member.name!r} is no file, folder or symbolic link")
    for place, member in reversed(folders):
        _finish(place, member)


def _finish(place: str, member: tarfile.TarInfo) -> None:
    os.chmod(place, member.mode)
    os.utime(place, (member.mtime, member.mtime))
