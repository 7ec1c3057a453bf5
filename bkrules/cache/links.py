"""Folders of hard links to blobs, kept in the disk cache between builds.

A link moves the ctime of its blob, so bk reads the blob again. A folder that is made in each build would cost the
reading of all tools in each build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from bkrules.model import digest
from bkrules.system import locks
from bkrules.system.files import open_regular

FOLDER = "links"
"""The folder below the disk cache."""
Files = Mapping[str, str | bytes]
"""The files of a folder by name: the path of a blob in the CAS, or bytes."""
_NAME = re.compile("[0-9a-f]{64}").fullmatch
_FOLDER_MODE = 0o755


class LinkFolders:
    """The kept folders of the disk cache `cache`. Those that this build uses stay until `close`."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._held: list[int] = []

    def get(self, files: Files, make: Callable[[], Path]) -> str:
        """Return a folder with these files, readable for everyone.

        `make` makes such a folder on the file system of the cache. When a kept folder has other files, and another build
        uses it, when the links are copies, or when `links` cannot be written to, the folder that `make` has made is
        returned, and stays where it is.
        """
        listed = json.dumps(sorted((name, _content(file)) for name, file in files.items()))
        kept = f"{self._cache}/{FOLDER}/{digest.of_bytes(listed.encode()).hash}"
        with _locked(self._cache):
            if self._hold(kept, files):
                return kept
        made = str(make())  # without the lock: where there are no links, it copies
        _open_folders(made)
        with _locked(self._cache):
            if self._hold(kept, files):  # another process was faster
                return kept
            if os.path.lexists(kept) or not _is_right(made, files):
                return made
            try:
                os.makedirs(os.path.dirname(kept), exist_ok=True)
                os.rename(made, kept)
            except OSError:
                return made
            return kept if self._hold(kept, files) else str(make())

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
        _remove(kept, descriptor)
        return False


def remove_links(cache: str) -> None:
    """Remove the folders that no build uses, so that the blobs which only they link no longer take room. Foreign files stay."""
    folder = f"{cache}/{FOLDER}"
    if os.path.islink(folder) or not os.path.isdir(folder):
        return
    with _locked(cache):
        for name in filter(_NAME, os.listdir(folder)):
            with suppress(OSError):  # it is no folder, or not this user's
                _remove(f"{folder}/{name}", _opened(f"{folder}/{name}"))


def _locked(cache: str) -> AbstractContextManager[None]:
    return locks.locked(f"{cache}/locks/{FOLDER}")


def _remove(folder: str, descriptor: int) -> None:
    """Remove a folder when nobody holds it, as far as this user may, and close its descriptor."""
    try:
        if locks.tried(descriptor):
            with suppress(RecursionError):  # bk makes no folder that deep
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _open_folders(made: str) -> None:
    """Let everyone enter the folders, whatever the umask: daemons without privileges read them, in other builds too."""
    for parent, _, _ in os.walk(made):
        os.chmod(parent, _FOLDER_MODE)


def _opened(folder: str) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _content(file: str | bytes) -> str:
    return os.path.basename(file) if isinstance(file, str) else digest.of_bytes(file).hash


def _is_right(folder: str, files: Files) -> bool:
    """Return whether a folder has these files, and no other."""
    try:
        names = set(_below(folder, ""))
        return names == files.keys() and all(_is_file(f"{folder}/{name}", file) for name, file in files.items())
    except (OSError, RecursionError):
        return False


def _is_file(path: str, file: str | bytes) -> bool:
    if isinstance(file, bytes):
        with open_regular(path, follow=False) as found:
            return found.read(len(file) + 1) == file
    here, blob = os.lstat(path), os.stat(file)
    return (here.st_dev, here.st_ino) == (blob.st_dev, blob.st_ino)


def _below(folder: str, prefix: str) -> Iterator[str]:
    """Yield the paths of all files below a folder: symbolic links too, and folders that are empty or not open to all."""
    with os.scandir(folder) as entries:
        found = list(entries)
    if prefix and (not found or os.stat(folder).st_mode & 0o777 != _FOLDER_MODE):
        yield prefix
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name
