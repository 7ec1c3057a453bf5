"""Folders of hard links to blobs, kept in the disk cache between builds.

A link moves the ctime of its blob, so bk reads the blob again. A folder that is made in each build would cost the
reading of all tools in each build.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bkrules.model import digest
from bkrules.system import locks
from bkrules.system.files import open_regular

FOLDER = "links"
"""The folder below the disk cache."""
Files = Mapping[str, str | bytes]
"""The files of a folder by name: the path of a blob in the CAS, or bytes."""


class LinkFolders:
    """The kept folders of the disk cache `cache`. Those that this build uses stay until `close`."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._held: list[int] = []

    def get(self, files: Files, make: Callable[[], Path]) -> str:
        """Return a folder with these files.

        `make` makes such a folder on the file system of the cache. When a kept folder has other files, and another build
        uses it, or when the links are copies, the folder that `make` has made is returned, and stays where it is.
        """
        listed = json.dumps(sorted((name, _content(file)) for name, file in files.items()))
        kept = f"{self._cache}/{FOLDER}/{digest.of_bytes(listed.encode()).hash}"
        with locks.locked(f"{self._cache}/locks/{FOLDER}"):
            if self._hold(kept, files):
                return kept
            made = str(make())
            if os.path.lexists(kept) or not _is_right(made, files):
                return made
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            os.rename(made, kept)
            self._held.append(_opened(kept))
            locks.hold(self._held[-1], shared=True)
            return kept

    def close(self) -> None:
        """Let other processes remove the folders."""
        while self._held:
            os.close(self._held.pop())

    def _hold(self, kept: str, files: Files) -> bool:
        """Return whether the folder exists with the right links, and keep it. Another one that nobody uses is removed."""
        try:
            descriptor = _opened(kept)
        except OSError:
            return False
        if _is_right(kept, files) and locks.tried(descriptor, shared=True):
            self._held.append(descriptor)
            return True
        try:
            if locks.tried(descriptor):
                shutil.rmtree(kept)
        finally:
            os.close(descriptor)
        return False


def remove_links(cache: str) -> None:
    """Remove the folders that no build uses, so that the blobs which only they link no longer take room."""
    folder = f"{cache}/{FOLDER}"
    if not os.path.isdir(folder):
        return
    with locks.locked(f"{cache}/locks/{FOLDER}"):
        for name in os.listdir(folder):
            try:
                descriptor = _opened(f"{folder}/{name}")
            except NotADirectoryError:
                continue  # foreign
            try:
                if locks.tried(descriptor):
                    shutil.rmtree(f"{folder}/{name}")
            finally:
                os.close(descriptor)


def _opened(folder: str) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _content(file: str | bytes) -> str:
    return os.path.basename(file) if isinstance(file, str) else digest.of_bytes(file).hash


def _is_right(folder: str, files: Files) -> bool:
    """Return whether a folder has these files, and no other."""
    try:
        names = set(_below(folder, ""))
        return names == files.keys() and all(_is_file(f"{folder}/{name}", file) for name, file in files.items())
    except OSError:
        return False


def _is_file(path: str, file: str | bytes) -> bool:
    if isinstance(file, bytes):
        with open_regular(path, follow=False) as found:
            return found.read(len(file) + 1) == file
    here, blob = os.lstat(path), os.stat(file)
    return (here.st_dev, here.st_ino) == (blob.st_dev, blob.st_ino)


def _below(folder: str, prefix: str) -> Iterator[str]:
    """Yield the paths of all files below a folder; a symbolic link is a file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name
