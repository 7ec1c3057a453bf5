"""Waits for changes below a folder, by the kernel's inotify: no file is looked at while nothing changes."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator

from bkrules.system.waiting import readable

_CLOSE_WRITE, _MOVED, _CREATE, _DELETE = 0x8, 0xC0, 0x100, 0x200
_ONLY_FOLDERS = 0x01000000
_HEAD = struct.Struct("iIII")
_LONGEST_WAIT = 0.5
"""Seconds. CPython handles a signal that arrives just before a wait, such as Ctrl-C, only after that wait."""
_QUIET = 0.1
"""Seconds without another change after which a change counts as over: editors write a file in several steps."""


class Watch:
    """The changes of files in all folders below `root` that `wanted` takes by their names, since this object exists."""

    def __init__(self, root: str, wanted: Callable[[str], bool]) -> None:
        self._root, self._wanted = root, wanted
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(self._library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), root)
        self._watched: dict[int, str] = {}
        self._add(root)

    def wait(self) -> set[str]:
        """Return the paths that have changed since the last call, waiting for the first change. Raises OSError."""
        changed = set(self._changes())
        while not changed:
            readable([self._descriptor], _LONGEST_WAIT)
            changed.update(self._changes())
        while readable([self._descriptor], _QUIET):
            changed.update(self._changes())
        return changed

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._descriptor)

    def _add(self, top: str) -> None:
        """Watch a folder and those below it. A folder that has gone meanwhile is none."""
        for folder, below, _ in os.walk(top):
            below[:] = [name for name in below if self._wanted(name)]
            mask = _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _ONLY_FOLDERS
            try:
                number = self._checked(
                    self._library.inotify_add_watch(self._descriptor, os.fsencode(folder), mask), folder
                )
            except (FileNotFoundError, NotADirectoryError):
                continue
            self._watched[number] = folder

    def _changes(self) -> Iterator[str]:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        place = 0
        while place < len(data):
            number, _, _, length = _HEAD.unpack_from(data, place)
            place += _HEAD.size + length
            name = os.fsdecode(data[place - length : place].rstrip(b"\0"))
            path = f"{self._watched.get(number, self._root)}/{name}"
            if self._wanted(name):
                if os.path.isdir(path) and not os.path.islink(path):
                    self._add(path)
                yield path

    def _checked(self, answer: int, path: str) -> int:
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return answer
